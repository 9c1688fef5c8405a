"""What the package believes of Amazon SQS, as functions that any server can be asked."""
