"""The engine by which papermill executes notebooks here: their cells run in this process.

A kernel is another process, which takes seconds to begin and reads every record anew. A report
needs neither a kernel's isolation nor its protocol: its notebooks are ours, and train nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from papermill.engines import Engine, papermill_engines

from harness.experiment.store import uncollected

NAME = "harness"  # of the engine, to papermill


class InProcess(Engine):
    """Execute a notebook's cells one after another, and keep what they display.

    An error in a cell goes up to whoever executes the notebook, as that of a function does.

    >>> notebook = nbformat.v4.new_notebook(metadata={"papermill": {}})
    >>> says = "from IPython.display import HTML, display; display(HTML('<p>Hello.'))"
    >>> notebook.cells = [nbformat.v4.new_code_cell(says)]
    >>> executed = InProcess.execute_notebook(notebook, "python3", progress_bar=False)
    >>> executed.cells[0].outputs[0].data["text/html"]
    '<p>Hello.'
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **given: Any) -> None:  # noqa: ANN401
        """Execute the cells of papermill's ``nb_man.nb``, in place.

        Args:
            nb_man: papermill's manager of the notebook, which is told where it is.
            kernel_name: of no use here, as all else that papermill gives.
            given: of no use here.
        """
        names: dict[str, Any] = {"__name__": "notebook"}
        code = [(i, c) for i, c in enumerate(nb_man.nb.cells) if c.cell_type == "code"]
        with _displaying(), mpl.rc_context(), uncollected(kept=False):
            mpl.rcdefaults()  # a person's own settings are for working by hand
            for count, (index, cell) in enumerate(code, 1):
                nb_man.cell_start(cell, index)
                cell.execution_count = count
                with capture_output(stdout=False, stderr=False) as shown:
                    exec(compile(cell.source, f"<cell {count}>", "exec"), names)
                cell.outputs = [
                    nbformat.v4.new_output("display_data", o.data, metadata=o.metadata)
                    for o in shown.outputs
                ]
                nb_man.cell_complete(cell, index)


class _Shell(InteractiveShell):
    """A shell for a moment that displays and does nothing else.

    A whole one makes folders, which outlive a killed process, and changes this process.
    """

    def __init__(self) -> None:
        super(InteractiveShell, self).__init__()
        shell: Any = self  # IPython's methods are untyped
        shell.configurables = [self]
        shell.init_events()  # which pyplot asks for
        shell.init_display_formatter()
        shell.init_display_pub()


@contextmanager
def _displaying() -> Iterator[None]:
    """Let objects be displayed as HTML; an error in one goes up, instead of being printed."""
    with _shell() as shell:
        formatter: Any = shell.display_formatter
        before = formatter.active_types
        formatter.active_types = formatter.format_types
        shell.showtraceback = _raise
        try:
            yield
        finally:
            del shell.showtraceback
            formatter.active_types = before


@contextmanager
def _shell() -> Iterator[Any]:
    """The shell of IPython's that displays: the one that there is, of who works in it, or ours."""
    if InteractiveShell.initialized():
        yield InteractiveShell.instance()
        return
    try:
        yield _Shell.instance()
    finally:
        _Shell.clear_instance()


def _raise(error: Sequence[Any], **_: object) -> None:
    """In place of a shell's way to print an error: ``error`` is its type, itself and its trace."""
    raise error[1]


papermill_engines.register(NAME, InProcess)
