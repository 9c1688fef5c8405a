variable "platform" {} # aws elasticbeanstalk list-available-solution-stacks

resource "aws_sqs_queue" "dead_letters" {
  name                      = "shop-mail-dead-letter"
  message_retention_seconds = 1209600
  max_message_size          = 1048576
}

resource "aws_sqs_queue" "mail" {
  name                       = "shop-mail"
  visibility_timeout_seconds = 300
  max_message_size           = 1048576
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = 12
  })
}

resource "aws_iam_role" "shop" {
  for_each           = toset(["web", "worker"])
  name               = "shop-${each.key}"
  assume_role_policy = file("beanstalk/trust-policy.json")
}

resource "aws_iam_role_policy" "shop" {
  for_each = aws_iam_role.shop
  role     = each.value.name
  policy   = file("beanstalk/shop-${each.key}-policy.json")
}

resource "aws_iam_role_policy_attachment" "web" {
  role       = aws_iam_role.shop["web"].name
  policy_arn = "arn:aws:iam::aws:policy/AWSElasticBeanstalkWebTier"
}

resource "aws_iam_instance_profile" "shop" {
  for_each = aws_iam_role.shop
  name     = each.value.name
  role     = each.value.name
}

resource "aws_elastic_beanstalk_application" "shop" {
  name = "shop"
}

resource "aws_elastic_beanstalk_environment" "web" {
  name                = "shop-web"
  application         = aws_elastic_beanstalk_application.shop.name
  solution_stack_name = var.platform
  setting {
    namespace = "aws:autoscaling:launchconfiguration"
    name      = "IamInstanceProfile"
    value     = aws_iam_instance_profile.shop["web"].name
  }
  # Here the blocks of: python manage.py beanstalk_config --format terraform --tier web
}

resource "aws_elastic_beanstalk_environment" "worker" {
  name                = "shop-worker"
  application         = aws_elastic_beanstalk_application.shop.name
  solution_stack_name = var.platform
  tier                = "Worker"
  depends_on          = [aws_sqs_queue.mail]
  setting {
    namespace = "aws:autoscaling:launchconfiguration"
    name      = "IamInstanceProfile"
    value     = aws_iam_instance_profile.shop["worker"].name
  }
  dynamic "setting" {
    for_each = jsondecode(file("beanstalk/shop-worker-options.json"))
    content {
      namespace = setting.value.Namespace
      name      = setting.value.OptionName
      value     = setting.value.Value
    }
  }
  # Here the blocks of: python manage.py beanstalk_config --format terraform --tier worker
}
