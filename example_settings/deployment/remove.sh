# Removes what the tutorial has made: environments, database, queues and roles.
set -e
eb terminate shop-worker --force
eb terminate shop-web --force
aws elasticbeanstalk delete-application --application-name shop
aws rds delete-db-instance --db-instance-identifier shop --skip-final-snapshot
aws sqs delete-queue --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail
aws sqs delete-queue \
  --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail-dead-letter
aws cloudwatch delete-alarms --alarm-names shop-mail-dead-letter
aws iam detach-role-policy --role-name shop-web \
  --policy-arn arn:aws:iam::aws:policy/AWSElasticBeanstalkWebTier
aws iam remove-role-from-instance-profile --instance-profile-name shop-web --role-name shop-web
aws iam delete-instance-profile --instance-profile-name shop-web
aws iam delete-role-policy --role-name shop-web --policy-name beanstalk-dispatch
aws iam delete-role --role-name shop-web
aws iam remove-role-from-instance-profile --instance-profile-name shop-worker \
  --role-name shop-worker
aws iam delete-instance-profile --instance-profile-name shop-worker
aws iam delete-role-policy --role-name shop-worker --policy-name beanstalk-dispatch
aws iam delete-role --role-name shop-worker
