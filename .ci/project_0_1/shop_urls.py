from django.urls import include, re_path

urlpatterns = [re_path(r"^beanstalk_dispatch/", include("beanstalk_dispatch.urls"))]
