from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("beanstalk_dispatch/", include("beanstalk_dispatch.urls"))]
