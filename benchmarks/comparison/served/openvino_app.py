"""OpenVINO behind Starlette: ``python openvino_app.py GRAPH TOKENIZER PORT``."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import openvino
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tokenizers import Tokenizer

LONGEST = 512  # tokens
graph, folder, port = sys.argv[1:]
core = openvino.Core()
hints = {"PERFORMANCE_HINT": "THROUGHPUT"}
if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    hints["INFERENCE_PRECISION_HINT"] = "bf16"
compiled = core.compile_model(graph, "CPU", hints)
queue = openvino.AsyncInferQueue(compiled)
free = asyncio.Semaphore(len(queue))
tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
tokenizer.enable_truncation(LONGEST)
tokenizer.no_padding()
LABELS = list(json.loads(Path(folder, "config.json").read_text())["id2label"].values())


def answered(request, reply):
    loop, future = reply
    logits = request.get_output_tensor(0).data[0].copy()
    loop.call_soon_threadsafe(future.set_result, logits)


queue.set_callback(answered)


async def invocations(request):
    ids = np.array([tokenizer.encode((await request.json())["text"]).ids], dtype=np.int64)
    async with free:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        queue.start_async([ids, np.ones_like(ids)], (loop, future))
        logits = await future
    powers = np.exp(logits - logits.max())
    probabilities = dict(zip(LABELS, (powers / powers.sum()).tolist()))
    label = max(probabilities, key=probabilities.get)
    return JSONResponse({"label": label, "probabilities": probabilities})


app = Starlette(routes=[Route("/invocations", invocations, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
