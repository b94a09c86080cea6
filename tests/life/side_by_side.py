"""Runs a module's cases together, where most of the time passes in waiting."""

import contextlib
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def side_by_side(request, run):
    """Begins `run(case)` for every case of the module that was selected; by case, what to ask for its result.

    A case is the parameter `case` of a test.
    """
    items = [item for item in request.session.items if item.module is request.module and hasattr(item, "callspec")]
    chosen = [item.callspec.params["case"] for item in items if "case" in item.callspec.params]
    with ThreadPoolExecutor(max(1, len(chosen))) as pool:
        yield {case: pool.submit(run, case) for case in chosen}
