# One image for web, three kinds of workers, beat and sandbox; the command says which:
#   web      (default)
#   worker   python -m celery -A partner_api -q worker --without-gossip --without-mingle -Q deeds,deeds-bulk
#   upkeep   python -m celery -A partner_api -q worker --without-gossip --without-mingle -Q upkeep
#   webhooks python -m celery -A partner_api -q worker --without-gossip --without-mingle -Q webhooks
#   beat     python -m celery -A partner_api -q beat --schedule /tmp/celerybeat-schedule
#   sandbox  python manage.py runsandbox --host 0.0.0.0
# The root file system may be read-only; /tmp must be writable, /spool (the request log until it is stored;
# mount a volume), and /data where deeds are kept locally.

FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.txt constraints.txt ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --only-binary=:all: -c constraints.txt -r requirements.txt
WORKDIR /app
COPY . .
# These values load the settings for this one command and stay out of the image.
RUN ENVIRONMENT=production SECRET_KEY=build FIELD_ENCRYPTION_KEYS=build PUBLIC_BASE_URL=https://build.invalid \
    DATABASE_URL=postgres://build:build@build.invalid/build REDIS_URL=redis://build.invalid/0 \
    /opt/venv/bin/python manage.py collectstatic --noinput --skip-checks \
    && rm -rf /opt/venv/lib/python3.13/site-packages/pip*

FROM python:3.13-slim
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DEED_STORAGE_DIR=/data/deeds \
    VAR_DIR=/tmp/var \
    USAGE_SPOOL_DIR=/spool
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app \
    && install -d -o app -g app /data /spool \
    && rm -rf /usr/local/lib/python3.13/site-packages/pip* /usr/local/bin/pip*
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
USER 10001:10001
EXPOSE 8000
VOLUME /data /spool
# The Host header is one that ALLOWED_HOSTS has; 127.0.0.1 is none of them in production.
HEALTHCHECK --interval=15s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:8000/healthz', headers={'Host': os.environ['PUBLIC_BASE_URL'].split('/')[2]}), timeout=2)"]
CMD ["python", "-m", "gunicorn", "-c", "python:partner_api.gunicorn_conf", "partner_api.wsgi:application"]
