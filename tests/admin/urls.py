"""Two admin sites, the second under another name."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from beanstalk_dispatch.contrib.results.admin import StoredResultAdmin
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.contrib.workbench.admin import DeadLetterAdmin
from beanstalk_dispatch.contrib.workbench.models import DeadLetter

second = admin.AdminSite(name="second")
second.register(DeadLetter, DeadLetterAdmin)
second.register(StoredResult, StoredResultAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("second/", second.urls)]
