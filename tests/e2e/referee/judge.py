"""Run all check scripts in one process, since loading the official package takes longer than they.

Run by the interpreter that has the package, with the server's URL. Each script prints "ok" or ends
in an error, which is printed and counted; the others are run all the same.
"""

import runpy
import sys
import traceback
from pathlib import Path

failed = 0
for check in sorted(Path(__file__).parent.glob("check_*.py")):
    print(f"{check.stem}: ", end="", flush=True)
    try:
        runpy.run_path(str(check), run_name="__main__")
    except Exception:  # one verdict must not keep the others back
        failed += 1
        print(traceback.format_exc())
sys.exit(1 if failed else 0)
