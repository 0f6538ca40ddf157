"""LitServe: ``python litserve_app.py MODEL PORT``."""

import sys

import litserve
from pipeline import classify, load


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.model = load(sys.argv[1])

    def decode_request(self, request):
        return request["text"]

    def batch(self, texts):
        return texts

    def predict(self, texts):
        return classify(self.model, texts)

    def unbatch(self, answers):
        return answers

    def encode_response(self, answer):
        return answer


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
