"""Where the books do not agree, for finance: a list by time, and the repair of one with its reason."""

import datetime as dt
from typing import Final
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from billing import reconciliation, reconciling, stripe_client
from billing.admin.base import ReadOnlyAdmin
from billing.pricing import midnight
from billing.reconciliation import Variance
from keys import audit
from keys.admin.acts import Act, confirmation
from keys.admin.forms import ReasonForm
from keys.models import Partner

_DEFAULT: Final = dt.timedelta(days=7)
_LIST: Final = "admin:billing_ledgerentry_reconcile"
_REPAIR: Final = Act(
    "repair",
    "Repair",
    "{object.kind} of {object.subject}: {object.detail}. What is missing is charged, sent or billed as an "
    "item; what is too much is credited by another entry. Nothing is edited.",
    "build",
)


def list_view(page_of: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The variances of a time."""
    page_of.may(request, "view_ledgerentry")
    first, last = _days(request)
    found, reason = _found(first, last)
    if reason:
        page_of.message_user(request, reason, messages.ERROR)
    names = dict(Partner.objects.values_list("pk", "name"))
    rows = [
        (one, names.get(one.partner_id), reconciliation.is_repairable(one) and _repair_url(one, first, last))
        for one in found
    ]
    return page_of.page(request, "reconcile.html", "Reconciliation", rows=rows, first=first, last=last)


def repair_view(page_of: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """Asks for the reason, and repairs the variance that the address names, on POST."""
    page_of.may(request, "adjust_ledgerentry")
    first, last = _days(request)
    back = f"{reverse(_LIST)}?{urlencode({'from': first, 'to': last})}"
    found, reason = _found(first, last)
    chosen = next((one for one in found if _name(one) == request.GET.get("variance")), None)
    if chosen is None:
        text = reason or "There is nothing to repair any more."
        page_of.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(back)
    form = ReasonForm(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        return confirmation(page_of, request, _REPAIR, form, about=chosen, back=back)
    actor, reason = audit.Actor.staff(request), form.cleaned_data["reason"]
    try:
        is_repaired = reconciling.repair_one(chosen, actor, reason=reason)
    except stripe_client.StripeFault as fault:
        page_of.message_user(request, f"Stripe could not be asked: {fault}", messages.ERROR)
        return HttpResponseRedirect(back)
    if is_repaired:
        page_of.message_user(request, "It is repaired.")
    else:
        text = "There was nothing to repair, or it needs a decision."
        page_of.message_user(request, text, messages.WARNING)
    return HttpResponseRedirect(back)


def _found(first: dt.date, last: dt.date) -> tuple[list[Variance], str]:
    return reconciliation.compare(midnight(first), midnight(last + dt.timedelta(days=1)))


def _name(variance: Variance) -> str:
    return f"{variance.kind}:{variance.subject}"


def _repair_url(variance: Variance, first: dt.date, last: dt.date) -> str:
    query = urlencode({"variance": _name(variance), "from": first, "to": last})
    return f"{reverse('admin:billing_ledgerentry_repair')}?{query}"


def _days(request: HttpRequest) -> tuple[dt.date, dt.date]:
    today = timezone.now().date()
    return _day(request.GET.get("from"), today - _DEFAULT), _day(request.GET.get("to"), today)


def _day(text: str | None, otherwise: dt.date) -> dt.date:
    try:
        return dt.date.fromisoformat(text or "")
    except ValueError:
        return otherwise
