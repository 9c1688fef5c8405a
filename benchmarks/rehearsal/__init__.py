"""A worker machine of Elastic Beanstalk on this machine, and what surprises people there."""
