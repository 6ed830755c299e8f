"""A step of a flow as a SageMaker training job.

``decorator`` is what Metaflow calls; ``cli`` is what it runs in place of the step: it starts the
job (``launch``) and follows it. ``request`` and ``script`` are what is sent, made of values alone;
``job`` talks to AWS, with ``guard`` beside it, which stops the job when the command dies.
``shipped`` says which files of the repository the job needs, ``handover`` is ``wait=False``.
"""
