"""In English, which is all there is. Django takes what is not here from its own."""

DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"
