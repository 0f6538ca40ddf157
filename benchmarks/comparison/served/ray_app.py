"""Ray Serve: one replica with batching."""

import os

from pipeline import classify, load
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
class Classifier:
    def __init__(self):
        self.model = load(os.environ["MODEL"])

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def classify(self, texts):
        return classify(self.model, texts)

    async def __call__(self, request):
        return await self.classify((await request.json())["text"])


app = Classifier.bind()
