resource "aws_sqs_queue" "dead_letters" {
  name                      = %{dead_letters}
  fifo_queue                = %{fifo}
  message_retention_seconds = 1209600
}

resource "aws_sqs_queue" "tasks" {
  name                       = %{queue}
  fifo_queue                 = %{fifo}
  visibility_timeout_seconds = %{visibility}
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = %{receives}
  })
}

resource "aws_lambda_function" "worker" {
  function_name = %{name}
  role          = aws_iam_role.worker.arn
  filename      = "function.zip"
  handler       = "%{handler}"
  runtime       = "python3.13"
  memory_size   = 512
  timeout       = %{timeout}
  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO"
  }
  # For a database or a cache in a VPC, where SQS then needs an endpoint or a NAT gateway,
  # and the role the policy AWSLambdaVPCAccessExecutionRole:
  # vpc_config {
  #   subnet_ids         = ["subnet-1"]
  #   security_group_ids = ["sg-1"]
  # }
  environment {
    variables = {
%{variables}
    }
  }
}

resource "aws_lambda_event_source_mapping" "tasks" {
  event_source_arn        = aws_sqs_queue.tasks.arn
  function_name           = aws_lambda_function.worker.arn
  batch_size              = 10
  function_response_types = ["ReportBatchItemFailures"]
  scaling_config {
    maximum_concurrency = %{max_concurrency}
  }
}

resource "aws_iam_role" "worker" {
  name = %{name}
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.worker.name
  policy_arn = "arn:%{partition}:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_iam_role_policy" "tasks" {
  role = aws_iam_role.worker.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes",
                  "sqs:SendMessage"]
        Resource = aws_sqs_queue.tasks.arn
      },
      {
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = %{senders}
      },
    ]
  })
}
