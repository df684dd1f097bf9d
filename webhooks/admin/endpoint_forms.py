"""What staff fill in for an endpoint."""

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from keys.admin.forms import EditForm, ReasonForm
from keys.models import Partner
from partner_api.http.problems import Problem
from webhooks import addresses
from webhooks.event_types import PATTERNS
from webhooks.reading import ADDRESS


class EndpointForm(forms.Form):
    """What a partner can say of an endpoint; the API's own rules decide what is right."""

    url = forms.CharField(
        label="URL",
        max_length=addresses.MAX_URL_LENGTH,
        widget=UnfoldAdminTextInputWidget(),
        help_text=ADDRESS,
    )
    event_types = forms.MultipleChoiceField(
        choices=[(pattern, pattern) for pattern in PATTERNS],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Types, all of a kind (deed.*), or everything (*).",
    )
    description = forms.CharField(max_length=200, required=False, widget=UnfoldAdminTextInputWidget())

    @property
    def body(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("url", "event_types", "description")}

    def add_problem(self, problem: Problem) -> None:
        """Each error beside the field that it points to."""
        for error in problem.errors:
            name = error.pointer.removeprefix("/").partition("/")[0]
            self.add_error(name if name in self.fields else None, error.message)
        if not problem.errors:
            self.add_error(None, problem.detail)


class NewEndpointForm(EndpointForm):
    partner = forms.ModelChoiceField(Partner.objects.order_by("name"), widget=UnfoldAdminSelectWidget)
    livemode = forms.BooleanField(
        required=False,
        initial=True,
        widget=UnfoldBooleanSwitchWidget,
        label="Live events",
        help_text="Off: the events of test keys.",
    )
    field_order = ("partner", "livemode")


class EndpointEditForm(EditForm, EndpointForm):
    field_order = ("url", "event_types", "description", "reason")


class ReplayForm(ReasonForm):
    since = forms.DateTimeField(
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}), help_text="In UTC."
    )
    until = forms.DateTimeField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
        help_text="In UTC; without it, all since then.",
    )
    undelivered_only = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        label="Only what it has not received",
    )
    field_order = ("since", "until", "undelivered_only", "reason")
