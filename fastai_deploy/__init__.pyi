from fastai_deploy.client import Answer as Answer
from fastai_deploy.client import ApiError as ApiError
from fastai_deploy.client import AsyncClient as AsyncClient
from fastai_deploy.client import Client as Client
from fastai_deploy.client import Failure as Failure
from fastai_deploy.client import InvalidRequest as InvalidRequest
from fastai_deploy.client import ModelError as ModelError
from fastai_deploy.client import Throttled as Throttled
from fastai_deploy.client import Unauthorized as Unauthorized
from fastai_deploy.client import Unavailable as Unavailable
from fastai_deploy.learner.live import export_learner as export_learner

__version__: str
__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "Client",
    "Failure",
    "InvalidRequest",
    "ModelError",
    "Throttled",
    "Unauthorized",
    "Unavailable",
    "export_learner",
]
