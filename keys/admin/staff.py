"""Staff, for owners: make one, give roles, take access away, reset a lost second factor.

What a role may do stands in keys.roles and is not edited here; nor can anybody here make a superuser,
which is for the day when nobody else can get in.
"""

from typing import Any, Final

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from keys import audit
from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import ModelEditForm, ReasonForm
from keys.audit import Actor
from keys.models import Authenticator, RecoveryCodes

admin.site.unregister(Group)
admin.site.unregister(User)

_FIELDS: Final = ("username", "first_name", "last_name", "email")
_SET: Final = ("staff.activated", "staff.deactivated")


class StaffEditForm(ModelEditForm, UserChangeForm):
    pass


class PasswordForm(ReasonForm, AdminPasswordChangeForm):
    def shown(self) -> Any:
        """One that another has just told the person is not replaced by mistake."""
        return self.user.password


@admin.register(User)
class StaffAdmin(ActingAdmin, UserAdmin):  # type: ignore[misc]  # both have a template; ours is the first
    form = UserChangeForm
    edit_form = StaffEditForm
    add_form = UserCreationForm
    change_password_form = PasswordForm
    change_user_password_template = "admin/staff/set_password.html"
    list_display = ("username", "email", "shown_roles", "has_second_factor", "is_active", "last_login")
    list_filter = ("is_active", "groups")
    search_fields = ("username", "email")
    ordering = ("username",)
    filter_horizontal = ()
    readonly_fields = ("is_active", "last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password", "first_name", "last_name", "email")}),
        ("Access", {"fields": ("is_active", "groups", "last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "email", "password1", "password2", "groups")}),)
    acts = (
        Act(
            "reset_second_factor",
            "Reset second factor",
            "{object} has to log in with the password alone and set up an authenticator again. Make sure "
            "that it is them who ask, and that they do it at once.",
            "phonelink_erase",
            overtaken_by=("staff.second_factor_reset", "staff.second_factor_enrolled"),
        ),
        Act(
            "deactivate",
            "Deactivate",
            "{object} is logged out everywhere, and can't log in any more until activated again.",
            "person_off",
            permission="change",
            overtaken_by=_SET,
        ),
        Act(
            "activate",
            "Activate",
            "{object} can log in again, with the roles that the page shows.",
            "person_check",
            permission="change",
            is_harmful=False,
            overtaken_by=(*_SET, "staff.changed"),
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        confirmed = Authenticator.objects.filter(user=OuterRef("pk"), confirmed=True)
        staff: QuerySet[User] = super().get_queryset(request)
        return staff.filter(is_staff=True).annotate(is_enrolled=Exists(confirmed)).prefetch_related("groups")

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "groups" and field is not None:
            field.widget = UnfoldAdminCheckboxSelectMultipleWidget(choices=field.choices)
            field.label, field.help_text = "Roles", ""
        return field

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_above = obj is not None and obj.is_superuser and not request.user.is_superuser
        return super().has_change_permission(request, obj) and not is_above

    def may_act(self, request: HttpRequest, act: Act, obj: Any = None) -> bool:
        if act.name == "deactivate" and obj == request.user:
            return False  # nobody locks themselves out
        return super().may_act(request, act, obj) and self.has_change_permission(request, obj)

    def is_open(self, act: Act, obj: Any) -> bool:
        match act.name:
            case "deactivate":
                return bool(obj.is_active)
            case "activate":
                return not obj.is_active
        return bool(obj.is_enrolled)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        asked = [(None, {"fields": ("reason", "seen")})] if self.is_edited(request, obj) else []
        return [*super().get_fieldsets(request, obj), *asked]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        # Nobody gives themselves a role.
        return (*fields, "groups") if obj == request.user else fields

    @admin.display(description="roles")
    def shown_roles(self, user: User) -> str:
        names = sorted(group.name for group in user.groups.all())
        return ", ".join(["superuser", *names] if user.is_superuser else names) or "none"

    @admin.display(description="second factor", boolean=True)
    def has_second_factor(self, user: Any) -> bool:
        return bool(user.is_enrolled)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        request.before = _facts(obj.pk) if change else {}  # type: ignore[attr-defined]  # for save_related
        if change:
            # Another may deactivate the person between the reading of the row and this.
            obj.save(update_fields=[name for name in form.changed_data if name in _FIELDS])
            return
        obj.is_staff = True
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        before, after = request.before, _facts(form.instance.pk)  # type: ignore[attr-defined]  # see save_model
        if before != after:
            action = "staff.changed" if change else "staff.created"
            reason = form.cleaned_data.get("reason", "")
            audit.record(
                Actor.staff(request), action, form.instance, before=before, after=after, reason=reason
            )

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 - Django's name
        user = self.get_object(request, id)
        hashed = user.password if user else None
        with transaction.atomic():
            page: HttpResponse = super().user_change_password(request, id, form_url)
            if user is not None:
                user.refresh_from_db(fields=["password"])
                if user.password != hashed:
                    reason = request.POST["reason"].strip()
                    audit.record(Actor.staff(request), "staff.password_set", user, reason=reason)
        return page

    def do_reset_second_factor(self, request: HttpRequest, user: Any, reason: str) -> str:
        # A session that one of these verified is not verified any more; it can't enrol either.
        with transaction.atomic():
            taken = [held.objects.filter(user=user).delete()[0] for held in (Authenticator, RecoveryCodes)]
            if any(taken):
                audit.record(Actor.staff(request), "staff.second_factor_reset", user, reason=reason)
        if not any(taken):
            return f"{user} had no second factor."
        self.log_change(request, user, f"Second factor reset: {reason}")
        return f"{user} has no second factor any more."

    def do_deactivate(self, request: HttpRequest, user: Any, reason: str) -> str:
        return self._set_active(request, user, reason, is_active=False)

    def do_activate(self, request: HttpRequest, user: Any, reason: str) -> str:
        return self._set_active(request, user, reason, is_active=True)

    def _set_active(self, request: HttpRequest, user: Any, reason: str, *, is_active: bool) -> str:
        done = "activated" if is_active else "deactivated"
        with transaction.atomic():
            is_done = User.objects.filter(pk=user.pk, is_active=not is_active).update(is_active=is_active)
            if is_done:
                audit.record(Actor.staff(request), f"staff.{done}", user, reason=reason)
        if not is_done:
            return f"{user} was {done} before."
        self.log_change(request, user, f"{done.capitalize()}: {reason}")
        return f"{user} is {done}."


def _facts(pk: Any) -> dict[str, Any]:
    user = get_user_model().objects.get(pk=pk)
    fields = {name: getattr(user, name) for name in (*_FIELDS, "is_active")}
    return {**fields, "roles": sorted(user.groups.values_list("name", flat=True))}
