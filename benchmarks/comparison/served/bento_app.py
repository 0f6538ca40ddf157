"""BentoML: a batchable endpoint.

Not behind a second service, as BentoML's guide has it for single texts: services close idle
connections to each other after 5 seconds, and a request that is sent just then is answered 500.
"""

import os

import bentoml
from pipeline import classify, load


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Classifier:
    def __init__(self):
        self.model = load(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=30_000)
    def predict(self, texts: list[str]) -> list[dict]:
        return classify(self.model, texts)
