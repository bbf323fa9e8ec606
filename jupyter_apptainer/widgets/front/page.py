"""One page of the panel: a table, a choice among its rows, buttons for the chosen one, and forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from .fields import ListEntries, make_field
from .markup import render_facts, render_html, render_message, render_output
from .model import Action, Form, Row, Section, Values, Words, filter_rows
from .source import ALL_GPUS

_BUTTON = {"width": "auto"}
_WIDE = {"width": "min(560px, 95%)"}
OnEnd = Callable[[bool], None]
Run = Callable[[Action, OnEnd], None]


class Page:
    """Shows a `Section`, and calls `run` with what is clicked, and who is told whether it succeeded. touch: called at every use."""

    def __init__(
        self, name: str, noun: str, run: Run, touch: Callable[[], None], list_entries: ListEntries = lambda _: ()
    ) -> None:
        self._section = Section(name=name, title=noun, empty="Looking…")
        self._run = run
        self._touch = touch
        self._list_entries = list_entries
        self._filter = ipywidgets.Text(
            description="Filter", placeholder="words that a row must have", continuous_update=True
        )
        self._table = ipywidgets.HTML(value=render_html(self._section))
        self._choice = ipywidgets.Dropdown(description=noun, layout=_WIDE, style={"description_width": "initial"})
        self._facts = ipywidgets.HTML()
        self._buttons = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self._reasons = ipywidgets.HTML()
        self._dialog = ipywidgets.VBox()
        self._output = ipywidgets.VBox()
        self._all = ipywidgets.Checkbox(
            description="All GPUs of this machine, not only those given to you", indent=False
        )
        self._all.observe(lambda _: self._touch(), "value")
        self._known: dict[str, Any] = {}
        self._filter.observe(lambda _: self._changed(), "value")
        self._choice.observe(lambda _: self._changed(), "value")
        above = {"images": [self._filter], "gpu": [self._all]}
        self.widget = ipywidgets.VBox(
            [
                *above.get(name, ()),
                self._table,
                self._choice,
                self._buttons,
                self._reasons,
                self._dialog,
                self._output,
                self._facts,
            ]
        )

    @property
    def wanted(self) -> str:
        """What is to be loaded for it."""
        return ALL_GPUS if self._all.value else self._section.name

    def show(self, section: Section) -> None:
        """Show what there is now. What is chosen, typed or opened stays."""
        self._section = section
        self._render()

    def show_output(self, title: str, text: str, *, is_to_copy: bool = False) -> None:
        """Show what a command has printed."""
        before = self._output.children
        if is_to_copy:
            # No front end lets a kernel write to the clipboard; a field is marked and copied with two keys.
            help_text = render_message(
                "Click into the field: Ctrl+A marks all of it, Ctrl+C copies it.", is_error=False
            )
            style = {"description_width": "initial"}
            field = ipywidgets.Textarea(value=text, description=title, rows=8, layout={"width": "95%"}, style=style)
            self._output.children = (ipywidgets.HTML(value=help_text), field)
        else:
            self._output.children = (ipywidgets.HTML(value=render_output(title, text)),) if text else ()
        for widget in before:
            widget.close()

    def _changed(self) -> None:
        self._touch()
        self._render()

    @property
    def _row(self) -> Row | None:
        return self._section.find_row(self._choice.value)

    def _render(self) -> None:
        rows = filter_rows(self._section, self._filter.value)
        self._offer(rows)
        row = self._row
        self._table.value = render_html(self._section, rows, row.key if row else None)
        self._facts.value = render_facts(row)
        self._choice.layout.display = "" if rows else "none"
        actions = row.actions if row else ()
        self._buttons.children = (
            *(self._place_action(action) for action in actions),
            *(self._place_form(form) for form in self._section.forms),
        )
        self._reasons.value = _render_reasons(actions, self._section.forms, row)

    def _offer(self, rows: tuple[Row, ...]) -> None:
        options = tuple((_name_uniquely(row, rows), row.key) for row in rows)
        if options != self._choice.options:
            before = self._choice.value
            self._choice.options = options
            keys = [key for _, key in options]
            self._choice.value = before if before in keys else keys[0] if keys else None

    def _place_action(self, action: Action) -> Any:
        button = self._get_button(action.label, self._click_action)
        _set_possible(button, action.reason)
        return button

    def _place_form(self, form: Form) -> Any:
        button = self._get_button(f"{form.label}…", self._click_form)
        _set_possible(button, self._find_reason(form))
        return button

    def _find_reason(self, form: Form) -> str:
        return _find_reason(form, self._row)

    def _get_button(self, label: str, on_click: Callable[[Any], None]) -> Any:
        if label not in self._known:
            self._known[label] = ipywidgets.Button(description=label, layout=_BUTTON)
            self._known[label].on_click(on_click)
        return self._known[label]

    def _click_action(self, button: Any) -> None:
        self._touch()
        row = self._row
        action = next((each for each in row.actions if each.label == button.description), None) if row else None
        if action is None or action.reason:
            return
        if action.question:
            self._ask(action)
        else:
            self._run(action, _ignore)

    def _ask(self, action: Action) -> None:
        yes = ipywidgets.Button(description=f"Yes, {action.label.lower()}", button_style="danger", layout=_BUTTON)
        no = ipywidgets.Button(description="No", layout=_BUTTON)

        def agree(_: Any) -> None:
            self._close_dialog()
            self._run(action, _ignore)

        yes.on_click(agree)
        no.on_click(lambda _: self._close_dialog())
        question = ipywidgets.HTML(value=render_message(action.question, is_error=True))
        self._open_dialog([question, ipywidgets.HBox([yes, no])])

    def _click_form(self, button: Any) -> None:
        self._touch()
        form = next(each for each in self._section.forms if f"{each.label}…" == button.description)
        made = {field.name: make_field(field, self._list_entries) for field in form.fields}
        note = ipywidgets.HTML()
        go = ipywidgets.Button(description=form.label, button_style="primary", layout=_BUTTON)
        leave = ipywidgets.Button(description="Close", layout=_BUTTON)
        dialog = [*_introduce(form), *(widget for widget, _ in made.values()), note, ipywidgets.HBox([go, leave])]

        def end(is_ok: bool) -> None:
            # What was typed stays until it was good for something; the dialog may be another one by now.
            if is_ok and self._dialog.children == tuple(dialog):
                self._close_dialog()
            go.disabled = False

        def submit(_: Any) -> None:
            self._touch()
            try:
                words = self._build(form, {name: read() for name, (_, read) in made.items()})
            except ValueError as error:
                note.value = render_message(str(error), is_error=True)
                return
            note.value = ""
            go.disabled = True
            self._run(Action(label=form.label, words=words), end)

        go.on_click(submit)
        leave.on_click(lambda _: self._close_dialog())
        self._open_dialog(dialog)

    def _build(self, form: Form, values: Values) -> Words:
        row = self._row
        if form.is_for_row and row is None:
            raise ValueError("nothing is chosen")
        return form.build(values, row.key if row else "")

    def _open_dialog(self, children: list[Any]) -> None:
        self._close_dialog()
        self._dialog.children = children

    def _close_dialog(self) -> None:
        before, self._dialog.children = self._dialog.children, ()
        for widget in before:
            widget.close()


def _ignore(is_ok: bool) -> None:
    pass


def _introduce(form: Form) -> list[Any]:
    return [ipywidgets.HTML(value=render_message(form.note, is_error=False))] if form.note else []


def _find_reason(form: Form, row: Row | None) -> str:
    if form.reason or not form.is_for_row:
        return form.reason
    return row.reasons.get(form.label, "") if row else "nothing is chosen"


def _set_possible(button: Any, reason: str) -> None:
    button.disabled = bool(reason)
    button.tooltip = reason or button.description


def _render_reasons(actions: tuple[Action, ...], forms: tuple[Form, ...], row: Row | None) -> str:
    """A tooltip is not read by everybody: what cannot be done is also said in words."""
    said = [(action.label, action.reason) for action in actions]
    said += [(form.label, _find_reason(form, row)) for form in forms]
    by_reason: dict[str, list[str]] = {}
    for label, reason in said:
        if reason and row:
            by_reason.setdefault(reason, []).append(label)
    lines = [f"{', '.join(labels)}: not possible, {reason}" for reason, labels in by_reason.items()]
    return render_message("\n".join(lines), is_error=False).replace("jpa-good", "jpa-note")


def _name_uniquely(row: Row, rows: tuple[Row, ...]) -> str:
    is_alone = sum(other.label == row.label for other in rows) == 1
    return row.label if is_alone else f"{row.label} ({row.key})"
