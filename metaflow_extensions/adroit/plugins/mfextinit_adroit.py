"""What Metaflow finds here: the step decorator ``@in_sagemaker`` and its commands.

Metaflow reads this module wherever the repository's root is on ``sys.path``, and both classes with
it; so neither imports boto3 before it is needed.
"""

STEP_DECORATORS_DESC = [("in_sagemaker", ".sagemaker.decorator.InSagemakerDecorator")]
TRAMPOLINE_CLIS_DESC = [("sagemaker", ".sagemaker.cli.cli")]
