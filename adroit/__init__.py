"""What runs beside a model: ``serving`` in the image, ``training`` in the flows that make it.

Nothing here imports ``adroit_publish``: a served model knows nothing of the release pipeline.
"""
