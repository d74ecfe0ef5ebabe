"""A real S3 server on loopback."""

from contextlib import contextmanager


@contextmanager
def s3_server():
    """A real S3 server on loopback with an empty bucket: (environment of clients)."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        boto3.client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id="test",
            aws_secret_access_key="test", region_name="us-east-1",
        ).create_bucket(Bucket="ecg")  # fmt: skip
        yield environment
    finally:
        server.stop()
