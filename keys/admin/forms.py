"""The forms of edits and acts: with a reason, and refused where their page was opened on another state.

A page sends all of its fields, and an act is agreed to for what its page said. One that was opened before
somebody else's change would undo it: widen a key that was narrowed, end another's legal hold.
"""

from typing import Any, Final

from django import forms
from django.utils.crypto import salted_hmac
from unfold.widgets import UnfoldAdminTextInputWidget

from partner_api.ops.redaction import redact

CHANGED: Final = "It was changed since this page was opened. Open the page again to see how."


class ReasonField(forms.CharField):
    """Without the secrets in it: it comes into the history, where whoever may look would find them."""

    def to_python(self, value: Any) -> str:
        return redact(str(super().to_python(value)))


def reason_field(max_length: int = 200) -> forms.CharField:
    return ReasonField(
        max_length=max_length,
        widget=UnfoldAdminTextInputWidget(),
        help_text="It stands in the audit trail.",
    )


class SeenForm(forms.Form):
    """Sends along what its page was opened on, and is refused where that is not so any more.

    `shown` is any value whose repr tells apart the states that matter.
    """

    seen = forms.CharField(required=False, widget=forms.HiddenInput())

    def __init__(self, *args: Any, shown: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shown = shown
        # A digest tells two states apart, and nothing of either.
        now = salted_hmac("keys.admin.forms.seen", repr(self.shown())).hexdigest()
        self.initial = {**self.initial, "seen": now}

    def shown(self) -> Any:
        return self._shown

    def clean(self) -> Any:
        cleaned = super().clean()
        now = self.initial["seen"]
        # A bound form shows what was sent, so that pressing its button again is refused again.
        if self.data.get("seen", now) != now:
            self.add_error(None, CHANGED)
        self.cleaned_data.pop("seen", None)
        return cleaned


class NothingMore(SeenForm):
    """An act that is only confirmed: it takes nothing away from anybody."""


class ReasonForm(SeenForm):
    reason = reason_field()


class EditForm(ReasonForm):
    """An edit: what its fields begin with is what was seen."""

    def shown(self) -> Any:
        shown = []
        for name in sorted(self.fields.keys() - {"reason", "seen"}):
            value = self.get_initial_for_field(self.fields[name], name)
            # Scopes, types of events and a person's roles come in any order.
            shown.append((name, sorted(map(repr, value)) if isinstance(value, list) else repr(value)))
        return shown


class ModelEditForm(EditForm, forms.ModelForm):
    """The same of a model's own fields."""
