"""What the person at the terminal sees: steps with their time, pleasant on a terminal and plain in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table


class Screen:
    """Progress goes to standard error, results to standard output.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._out = Console(highlight=False, soft_wrap=True)
        self._clock = clock
        self._began = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    def say(self, text: str) -> None:
        """One step."""
        self._err.print(f"[dim]{self.elapsed_s:6.1f} s[/dim]  {escape(text)}")

    def warn(self, text: str) -> None:
        """Something that is not as it should be."""
        self._err.print(f"[dim]{self.elapsed_s:6.1f} s[/dim]  [bold yellow]{escape(text)}[/bold yellow]")

    def addresses(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Where everything is."""
        if not self._out.is_terminal:
            for name, value in rows:
                self._out.print(f"{name}: {value}", markup=False)
            return
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim")
        table.add_column(style="bold")
        for name, value in rows:
            table.add_row(escape(name), escape(value))
        self._out.print(Panel(table, title=escape(title), border_style="green", expand=False))

    def try_these(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """What to try: (what, how)."""
        self._out.print()
        self._out.print(f"[bold]{escape(title)}[/bold]")
        for what, how in rows:
            self._out.print(f"  [green]•[/green] {escape(what)}" if self._out.is_terminal else f"  - {escape(what)}")
            if how:
                self._out.print(f"      [cyan]{escape(how)}[/cyan]")

    def result(self, rows: Mapping[str, object], *, good: bool) -> None:
        """The end of an unattended run."""
        for name, value in rows.items():
            self._out.print(f"{name}: {value}", markup=False)
        word = "[bold green]ok[/bold green]" if good else "[bold red]failed[/bold red]"
        self._out.print(word if self._out.is_terminal else ("ok" if good else "failed"))
