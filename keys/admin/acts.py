"""Acts on one object: asked for with a reason, and done by POST only. An edit asks for its reason too.

Each act has a permission of its own (`<act>_<model>`, see keys.roles), a page that says what will
happen, and a button on the object's page for those who have the permission. A page that was opened before
somebody else did the same, or its opposite, is refused.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin

from keys import audit, roles
from keys.admin.forms import ReasonForm, SeenForm


@dataclass(frozen=True)
class Act:
    """`explanation` may name the object as {object}. `permission` is the act's own name unless given.

    `overtaken_by` are actions of the audit trail: a page that was opened before one of them is refused. None
    for what stops harm and can't be done twice, such as a revocation: that must succeed at the first try.
    """

    name: str
    button: str
    explanation: str
    icon: str
    form: type[SeenForm] = ReasonForm
    permission: str = ""
    is_harmful: bool = True
    overtaken_by: tuple[str, ...] = ()


def confirmation(
    page_of: ModelAdmin, request: HttpRequest, act: Act, form: forms.Form, *, about: Any, back: str
) -> HttpResponse:
    """The page that says what will happen and asks for the reason; its form is sent to where it stands.

    `about` is what the act is on, None where it is on nothing single. `back` is where to leave it.
    """
    context = {
        **page_of.admin_site.each_context(request),
        "title": act.button if about is None else f"{act.button}: {about}",
        "act": act,
        "explanation": act.explanation.format(object=about),
        "form": form,
        "back": back,
        "opts": page_of.opts,
    }
    return TemplateResponse(request, "admin/acts/confirm.html", context)


class ActingAdmin(ModelAdmin):
    """`acts` lists them; `do_<name>(request, object, **cleaned form)` does one."""

    acts: tuple[Act, ...] = ()
    # The form of an edit; that of a new object has no reason.
    edit_form: type[forms.ModelForm] | None = None
    change_form_template = "admin/acts/change_form.html"

    def may_act(self, request: HttpRequest, act: Act, obj: Any = None) -> bool:
        needed = roles.permission(self.opts.label_lower, act.permission or act.name)
        return bool(request.user.has_perm(needed))

    def is_open(self, act: Act, obj: Any) -> bool:
        """Whether the act makes sense for the object as it is; else its button is not shown."""
        return True

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        if self.edit_form is not None and self.is_edited(request, obj):
            kwargs["form"] = self.edit_form
        return super().get_form(request, obj, **kwargs)

    def is_edited(self, request: HttpRequest, obj: Any) -> bool:
        return obj is not None and self.has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """From the address: whose the new object is. An id that is none, or a time, would break the page."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        owners = [field for field in self.opts.fields if isinstance(field, models.ForeignKey)]
        return {
            field.name: initial[field.name]
            for field in owners
            if field.name in initial and _is_id(field, initial[field.name])
        }

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """Lists refuse a NUL, a field's search does not, and Postgres can't compare with it."""
        return super().get_search_results(request, queryset, search_term.replace("\x00", ""))

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{act.name}/",
                self.admin_site.admin_view(partial(self._act_view, act=act)),
                name=self._url_name(act),
            )
            for act in self.acts
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        obj = self.get_object(request, object_id)
        buttons = [
            {"title": f"{act.button}…", "icon": act.icon, "link": self._url(act, obj)}
            for act in self.acts
            if obj is not None and self.may_act(request, act, obj) and self.is_open(act, obj)
        ]
        page: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "acts": buttons}
        )
        return page

    def show_once(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        """A page with a secret, as the answer itself: a redirect would have to carry it in a session or a
        message, and both are stored."""
        page = TemplateResponse(request, template, {**self.admin_site.each_context(request), **context})
        page["Cache-Control"] = "no-store"
        return page

    def _act_view(self, request: HttpRequest, object_id: str, act: Act) -> HttpResponse:
        obj = self.get_object(request, object_id)
        if not self.may_act(request, act, obj):
            raise PermissionDenied
        if obj is None:
            raise Http404
        latest = audit.last(act.overtaken_by, obj)
        form = act.form(request.POST if request.method == "POST" else None, shown=latest)
        if request.method == "POST" and form.is_valid():
            try:
                answer: HttpResponse | str = getattr(self, f"do_{act.name}")(
                    request, obj, **form.cleaned_data
                )
            except ValidationError as error:
                form.add_error(None, error.messages)
            else:
                if not isinstance(answer, str):
                    return answer
                self.message_user(request, answer)
                return HttpResponseRedirect(self._change_url(obj))
        return confirmation(self, request, act, form, about=obj, back=self._change_url(obj))

    def _change_url(self, obj: Any) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[obj.pk])

    def _url_name(self, act: Act) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{act.name}"

    def _url(self, act: Act, obj: Any) -> str:
        return reverse(f"admin:{self._url_name(act)}", args=[obj.pk])


def _is_id(field: Any, value: Any) -> bool:
    try:
        field.target_field.to_python(value)
    except ValidationError:
        return False
    return True
