"""What stands in for Triton's onnxruntime backend: Triton's python backend around ONNX Runtime.

Loaded by the server's own Python, which knows neither this repository nor PYTHONPATH. Tensors cross
by DLPack: the stub of this Triton was built for numpy 1, and with numpy 2 it hands over empty ones
without a word otherwise. (It then prints "PyCapsule_GetPointer called with incorrect name" for each
output, when it lets go of the capsule; the tensor is whole, as the tests show.)
"""

import json
import os
import sys
import time

sys.path.insert(0, os.environ["ROBUSTZS_TRITON_SITE"])

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    def initialize(self, args):  # type: ignore[no-untyped-def]
        config = json.loads(args["model_config"])
        settings = {key: one["string_value"] for key, one in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(settings["intra_op_thread_count"])
        options.inter_op_num_threads = int(settings["inter_op_thread_count"])
        options.enable_mem_pattern = settings["enable_mem_pattern"] == "1"
        options.log_severity_level = 3
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        # a test that wants a slow model writes its seconds here
        self.slow = os.path.join(args["model_repository"], "slow")
        self.source = config["input"][0]["name"]
        self.target = config["output"][0]["name"]

    def execute(self, requests):  # type: ignore[no-untyped-def]
        if os.path.exists(self.slow):
            with open(self.slow) as seconds:
                time.sleep(float(seconds.read()))
        given = [
            np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self.source)).copy()
            for request in requests
        ]
        # the real backend runs what the scheduler put together as one batch, too
        (whole,) = self.session.run([self.target], {self.source: np.concatenate(given)})
        ends = np.cumsum([len(one) for one in given])[:-1]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack(self.target, np.ascontiguousarray(part))]
            )
            for part in np.split(whole, ends)
        ]
