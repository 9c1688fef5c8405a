from __future__ import annotations

from django.urls import include, path

from . import views

urlpatterns = [
    path("samples/", views.samples),
    path("beanstalk_dispatch/", include("beanstalk_dispatch.urls")),
]
