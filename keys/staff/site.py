"""The admin's front door: nobody gets further than the login without a second factor."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.contrib.auth import authenticate, logout
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from django_otp import login as verify_session
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite
from unfold.widgets import UnfoldAdminTextInputWidget

from keys import audit, limits
from keys.audit import Actor
from keys.models import Authenticator, RecoveryCodes
from keys.models.second_factor import new_secret
from keys.staff.asking import sensibly
from keys.staff.backend import authenticator_for
from keys.staff.events import MAY_ENROL
from partner_api.http.problems import Problem

# In the session: the digest of the secret that it was shown.
_ENROLLING: Final = "enrolling"


class CodeInput(UnfoldAdminTextInputWidget):
    def __init__(self, **attrs: str) -> None:
        super().__init__({"autocomplete": "one-time-code", "spellcheck": "false", **attrs})

    def format_value(self, value: Any) -> None:
        """A code is never written back into a page."""


class LoginForm(AuthenticationForm):
    token = forms.CharField(
        label="Code",
        required=False,
        max_length=32,
        widget=CodeInput(),
        help_text="From your authenticator app, or a recovery code. Leave it empty at your first login.",
    )
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "Name, password and code don't fit together. A code works once; wait for the next.",
    }

    def clean(self) -> Any:
        # Django's own, with the code: password and second factor are one question.
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if name is not None and password:
            token = self.cleaned_data.get("token", "")
            self.user_cache = authenticate(self.request, username=name, password=password, token=token)
            if self.user_cache is None:
                raise self.get_invalid_login_error()
            self.confirm_login_allowed(self.user_cache)
        return self.cleaned_data


class CodeForm(forms.Form):
    token = forms.CharField(label="Code", max_length=32, widget=CodeInput(autofocus=""))


class StaffSite(UnfoldAdminSite):
    login_form = LoginForm
    login_template = "admin/staff/login.html"

    def has_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return bool(super().has_permission(request) and user.is_verified())

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:  # noqa: FBT001, FBT002 - Django's own
        return super().admin_view(sensibly(view), cacheable)

    def extra_urls(self) -> list[URLPattern]:
        enrol = csrf_protect(never_cache(self.enrol))
        return [
            path("enrol/", sensitive_post_parameters()(enrol), name="enrol"),
            path("recovery-codes/", self.admin_view(self.recovery_codes), name="recovery_codes"),
        ]

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method == "GET" and self._may_enrol(request):
            return HttpResponseRedirect(reverse("admin:enrol"))
        if request.method == "POST":
            try:
                limits.count_login(request)
            except Problem as problem:
                return _refused(request, problem.headers)
        page: HttpResponse = super().login(request, extra_context)
        return page

    def enrol(self, request: HttpRequest) -> HttpResponse:
        """The only page of a member of staff who has no second factor: makes one."""
        if not self._may_enrol(request):
            # Also a session from before somebody else enrolled under this name.
            if not self.has_permission(request):
                logout(request)
            return HttpResponseRedirect(reverse("admin:index"))
        form = CodeForm(request.POST if request.method == "POST" else None)
        device = _enrolling(request) if request.method == "POST" else None
        if device is None and request.method == "POST":
            form.add_error(None, "The secret was made anew in another window. Scan this one.")
        elif device is not None and form.is_valid():
            codes = self._confirm(request, form.cleaned_data["token"])
            if codes is not None:
                return self._show_codes(request, codes)
            form.add_error("token", "That is not the code of now. Check the phone's clock, and try the next.")
        device = device or _start(request)
        return self._page(
            request, "enrol", title="Second factor", form=form, secret=_grouped(device.secret), qr=_qr(device)
        )

    def recovery_codes(self, request: HttpRequest) -> HttpResponse:
        """Makes new recovery codes, for another code of the app."""
        form = CodeForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            device = authenticator_for(request.user, form.cleaned_data["token"])
            if device is not None:
                with transaction.atomic():
                    codes = RecoveryCodes.issue(device.user)
                    audit.record(Actor.staff(request), "staff.recovery_codes_made", device.user)
                return self._show_codes(request, codes)
            form.add_error("token", "That is not the code of now; one that was used does not work again.")
        return self._page(request, "recovery_codes", title="Recovery codes", form=form)

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Django's own page; all other sessions of this person end with it."""
        user: Any = request.user
        hashed = user.password
        with transaction.atomic():
            page: HttpResponse = super().password_change(request, extra_context)
            if user.password != hashed:
                audit.record(Actor.staff(request), "staff.password_changed", user)
        return page

    def _may_enrol(self, request: HttpRequest) -> bool:
        user = request.user
        return (
            user.is_active
            and user.is_staff
            and bool(request.session.get(MAY_ENROL))
            and not Authenticator.objects.filter(user=user, confirmed=True).exists()
        )

    def _confirm(self, request: HttpRequest, token: str) -> list[str] | None:
        """Takes the authenticator for good when the code fits, and lets this session in. None otherwise."""
        with transaction.atomic():
            device = _enrolling(request)
            if device is None or not device.verify_token(token.strip().replace(" ", "")):
                return None
            device.confirmed = True
            device.save(update_fields=["confirmed"])
            codes = RecoveryCodes.issue(device.user)
            audit.record(Actor.staff(request), "staff.second_factor_enrolled", device.user)
        for name in (MAY_ENROL, _ENROLLING):
            request.session.pop(name, None)
        # The session may do more from here on, so it gets another name.
        request.session.cycle_key()
        verify_session(request, device)
        return codes

    def _show_codes(self, request: HttpRequest, codes: list[str]) -> HttpResponse:
        return self._page(request, "codes", title="Recovery codes", codes=codes)

    def _page(self, request: HttpRequest, name: str, **context: Any) -> HttpResponse:
        page = TemplateResponse(
            request, f"admin/staff/{name}.html", {**self.each_context(request), **context}
        )
        page["Cache-Control"] = "no-store"
        return page


def _start(request: HttpRequest) -> Authenticator:
    """A secret that only this session has seen: whoever opened the page before with a stolen password does
    not share it. Raises PermissionDenied when somebody has enrolled meanwhile."""
    device: Authenticator
    with transaction.atomic():
        device, is_new = Authenticator.objects.select_for_update().get_or_create(
            user=request.user, defaults={"confirmed": False, "name": "app"}
        )
        if device.confirmed:
            raise PermissionDenied
        if not is_new:
            device.secret = new_secret()
            device.save(update_fields=["secret"])
    request.session[_ENROLLING] = _digest(device.secret)
    return device


def _enrolling(request: HttpRequest) -> Authenticator | None:
    """The authenticator that this session is setting up, locked within a transaction; None when it is
    confirmed, or was started anew by another session."""
    devices = Authenticator.objects.filter(user=request.user, confirmed=False)
    if transaction.get_connection().in_atomic_block:
        devices = devices.select_for_update()
    device = devices.first()
    is_ours = device is not None and request.session.get(_ENROLLING) == _digest(device.secret)
    return device if is_ours else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def locked_out(request: HttpRequest, response: HttpResponse, credentials: Any) -> HttpResponse:
    """What django-axes answers in the login's place."""
    return _refused(request)


def _refused(request: HttpRequest, headers: Mapping[str, str] | None = None) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": "Locked out"}
    page = render(request, "admin/staff/locked_out.html", context, status=429)
    for name, value in (headers or {}).items():
        page[name] = value
    return page


def _qr(device: Authenticator) -> str:
    """Drawn here, as SVG in the page: the secret goes to nobody else."""
    import qrcode.image.svg  # noqa: PLC0415 - slow to load, and shown once to each member of staff

    image = qrcode.make(device.config_url, image_factory=qrcode.image.svg.SvgPathImage, box_size=8, border=2)
    svg: str = image.to_string(encoding="unicode")
    return mark_safe(svg)  # noqa: S308 - drawn from our own URL


def _grouped(secret: str) -> str:
    return " ".join(secret[index : index + 4] for index in range(0, len(secret), 4))
