"""BentoML: an endpoint for single texts in front of a batchable one."""

import os

import bentoml
from pipeline import classify, load


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Model:
    def __init__(self):
        self.model = load(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=30_000)
    def classify(self, texts: list[str]) -> list[dict]:
        return classify(self.model, texts)


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Classifier:
    model = bentoml.depends(Model)

    @bentoml.api
    async def predict(self, text: str) -> dict:
        (answer,) = await self.model.to_async.classify([text])
        return answer
