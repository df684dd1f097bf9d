"""What staff may do with deeds: queue failed ones again, cancel a queued one, render a lost PDF again, and
keep one by a legal hold."""

from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from deeds import keeping, ordering, remaking
from deeds.models import Deed
from deeds.remaking import NotRemade
from keys import audit
from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import ReasonForm, reason_field
from keys.audit import Actor
from partner_api.http.problems import Problem

# As many as a request has time for; who selects more does it again.
_AT_ONCE: Final = 500
_HELD: Final = ("deed.held", "deed.released")


class HoldForm(ReasonForm):
    """A case has a longer name than other reasons."""

    reason = reason_field(max_length=500)


class DeedActs(ActingAdmin):
    actions = ("requeue_selected",)
    acts = (
        Act(
            "requeue",
            "Queue again",
            "Order {object.order_id} of {object.partner} failed (“{object.failure_message}”). It is given "
            "all its attempts again.",
            "replay",
            permission="change",
            is_harmful=False,
            overtaken_by=("deed.requeued",),
        ),
        Act(
            "cancel",
            "Cancel",
            "Order {object.order_id} of {object.partner} is queued. Cancelled, it is neither made nor "
            "charged, and the partner is told as if they had cancelled it themselves.",
            "cancel",
            permission="change",
            overtaken_by=("deed.requeued",),
        ),
        Act(
            "render_again",
            "Render again",
            "The PDF of order {object.order_id} of {object.partner} is made once more, if the storage lost "
            "or damaged it. The deed keeps its id and is not charged again; the SHA-256 that the partner "
            "knows may change. The renderer is called while you wait.",
            "print",
            permission="change",
        ),
        Act(
            "hold",
            "Legal hold",
            "The PDF of order {object.order_id} of {object.partner} will not be deleted while the hold is "
            "on.",
            "lock",
            form=HoldForm,
            permission="change",
            is_harmful=False,
            overtaken_by=_HELD,
        ),
        Act(
            "release",
            "End legal hold",
            "The PDF of order {object.order_id} of {object.partner} is on hold (“{object.hold_reason}”). "
            "Without the hold it is deleted once its time is up.",
            "lock_open",
            form=HoldForm,
            permission="change",
            overtaken_by=_HELD,
        ),
    )

    def is_open(self, act: Act, obj: Any) -> bool:
        match act.name:
            case "cancel":
                return bool(obj.status == Deed.Status.QUEUED)
            case "render_again":
                return bool(obj.has_pdf)
            case "hold":
                return bool(obj.held_at is None and obj.pdf_deleted_at is None)
            case "release":
                return obj.held_at is not None
        return bool(obj.status == Deed.Status.FAILED and obj.superseded_at is None)

    def do_requeue(self, request: HttpRequest, deed: Deed, reason: str) -> str:
        try:
            is_queued = self._requeue(request, deed, reason)
        except IntegrityError as error:
            message = "Another deed has taken over this order."
            raise ValidationError(message) from error
        if not is_queued:
            message = "Only a failed deed that no other replaced can be queued again."
            raise ValidationError(message)
        return "The deed is queued again."

    def do_cancel(self, request: HttpRequest, deed: Deed, reason: str) -> str:
        try:
            with transaction.atomic():
                ordering.cancel(
                    deed.partner, livemode=deed.livemode, deed_id=deed.pk, detail="cancelled_by_staff"
                )
                actor = Actor.staff(request)
                audit.record(actor, "deed.cancelled", deed, partner=deed.partner, reason=reason)
        except Problem as problem:
            raise ValidationError(problem.detail) from problem
        self.log_change(request, deed, f"Cancelled: {reason}")
        return "The deed is cancelled."

    def do_render_again(self, request: HttpRequest, deed: Deed, reason: str) -> str:
        try:
            remaking.remake(deed, Actor.staff(request), reason)
        except NotRemade as error:
            raise ValidationError(str(error)) from error
        self.log_change(request, deed, f"Rendered again: {reason}")
        return "The PDF was made again."

    def do_hold(self, request: HttpRequest, deed: Deed, reason: str) -> str:
        if not keeping.hold(deed, Actor.staff(request), reason):
            message = "It is on hold already, or its PDF was deleted."
            raise ValidationError(message)
        self.log_change(request, deed, f"Put on hold: {reason}")
        return "The hold is on."

    def do_release(self, request: HttpRequest, deed: Deed, reason: str) -> str:
        if not keeping.release(deed, Actor.staff(request), reason):
            message = "There is no hold on it."
            raise ValidationError(message)
        self.log_change(request, deed, f"Hold ended: {reason}")
        return "The hold is ended."

    @admin.action(description="Queue failed ones again…", permissions=["change"])
    def requeue_selected(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Asks for one reason for all that were selected, then queues those that can be, each by itself."""
        failed = queryset.filter(status=Deed.Status.FAILED, superseded_at=None).order_by("pk")
        if not failed.exists():
            message = (
                "None of these deeds failed, or others took over their orders: nothing can be queued again."
            )
            self.message_user(request, message, messages.WARNING)
            return None
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            return TemplateResponse(
                request,
                "admin/deeds/deed/requeue_selected.html",
                {
                    **self.admin_site.each_context(request),
                    "title": "Queue failed deeds again",
                    "opts": self.opts,
                    "form": form,
                    "count": failed.count(),
                    "at_once": _AT_ONCE,
                    "checkbox": ACTION_CHECKBOX_NAME,
                    "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
                    "across": request.POST.get("select_across", "0"),
                },
            )
        queued = passed_over = 0
        for deed in failed.select_related("partner")[:_AT_ONCE]:
            try:
                queued += self._requeue(request, deed, form.cleaned_data["reason"])
            except IntegrityError:
                passed_over += 1
        self.message_user(request, f"Queued again: {queued}.")
        if passed_over:
            message = f"Passed over, because another deed has taken over the order: {passed_over}."
            self.message_user(request, message, messages.WARNING)
        return None

    def _requeue(self, request: HttpRequest, deed: Deed, reason: str) -> bool:
        """Raises IntegrityError where another deed has taken over the order."""
        with transaction.atomic():
            is_queued = ordering.requeue(deed)
            if is_queued:
                actor = Actor.staff(request)
                audit.record(actor, "deed.requeued", deed, partner=deed.partner, reason=reason)
        if is_queued:
            self.log_change(request, deed, f"Queued again: {reason}")
        return is_queued
