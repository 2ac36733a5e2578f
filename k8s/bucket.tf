# The bucket's settings that docs/costs.md explains; the same rules as in bucket-lifecycle.json.

variable "bucket" {
  type        = string
  description = "Name of the bucket that holds the areas (S3_WORKSPACE_BUCKET)"
}

variable "prefix" {
  type        = string
  default     = "user_data"
  description = "Prefix of all areas (S3_WORKSPACE_PREFIX)"
}

resource "aws_s3_bucket_versioning" "areas" {
  bucket = var.bucket

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "areas" {
  bucket     = var.bucket
  depends_on = [aws_s3_bucket_versioning.areas]

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}/"
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  rule {
    id     = "expire-displaced-versions"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}/"
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "tier-large-objects-that-rest"
    status = "Enabled"

    filter {
      and {
        prefix                   = "${var.prefix}/"
        object_size_greater_than = 1048576
      }
    }

    transition {
      days          = 30
      storage_class = "INTELLIGENT_TIERING"
    }
  }
}
