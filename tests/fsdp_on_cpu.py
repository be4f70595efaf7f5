"""The command line, with an accelerate that accepts FSDP on CPUs too, where PyTorch's FSDP2 runs over gloo."""

import sys

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from bert_helpers.cli.main import main

started = PartialState.__init__


def start(self, *args, **kwargs):
    started(self, *args, **kwargs)
    if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU


PartialState.__init__ = start
sys.exit(main())
