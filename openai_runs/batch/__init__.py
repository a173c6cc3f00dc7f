"""Durable batches: many runs from lines, with a checkpoint from which a killed batch goes on.

```python
batch = Batch(client, checkpoint="batch.db")
status = await batch.run(read_jsonl("in.jsonl"), out="out.jsonl")
```

Started again after a crash or a `kill -9`, the same lines go on where they were: no run is
created twice. `read_results("out.jsonl")` yields what came of them. Needs POSIX (`flock`).
"""

from openai_runs import Progress
from openai_runs.batch.comparing import read_rows
from openai_runs.batch.errors import BatchError
from openai_runs.batch.inputs import Lines, read_csv, read_jsonl
from openai_runs.batch.job import Batch
from openai_runs.batch.reading import BatchResult, Failure, read_results
from openai_runs.batch.status import BatchStatus, status

__all__ = [
    "Batch",
    "BatchError",
    "BatchResult",
    "BatchStatus",
    "Failure",
    "Lines",
    "Progress",
    "read_csv",
    "read_jsonl",
    "read_results",
    "read_rows",
    "status",
]
