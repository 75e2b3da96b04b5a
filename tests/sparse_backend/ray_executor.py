"""vLLM's Ray executor on CPUs.

vLLM 0.32 places its workers by a device that Ray knows, and its CPU platform names none: "current platform cpu does not
support ray". Here it is a resource of our own. All else is as it comes: the workers are Ray's actors, and what vLLM
loads into them, plugins included, it loads as on GPUs.
"""

import ray
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.executor import ray_executor_v2

SLOT = "slot"


class Worker(ray_executor_v2.RayWorkerProc):
    def get_node_and_physical_gpu_ids(self) -> tuple[str, list[int]]:
        return ray.get_runtime_context().get_node_id(), [0]


class Executor(ray_executor_v2.RayExecutorV2):
    def _init_executor(self) -> None:
        CpuPlatform.ray_device_key = SLOT
        # The executor takes the class of its workers from its module, and from nowhere else.
        ray_executor_v2.RayWorkerProc = Worker  # type: ignore[misc]
        ray.init(num_cpus=2, resources={SLOT: self.parallel_config.world_size}, include_dashboard=False)
        super()._init_executor()
