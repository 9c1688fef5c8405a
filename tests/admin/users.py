"""Users of the admin with some of this package's permissions."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User
from django.test import Client


def client(*permissions: str, is_staff: bool = True) -> Client:
    """A client that is logged in as a user who has these permissions only."""
    user = User.objects.create_user("user", is_staff=is_staff)
    found = Permission.objects.filter(
        codename__in=permissions, content_type__app_label__startswith="beanstalk_"
    )
    assert len(found) == len(permissions)
    user.user_permissions.set(found)
    logged_in = Client()
    logged_in.force_login(user)
    return logged_in
