# Debian's Postgres and Valkey, started as the official images start them.
FROM base:stores
COPY postgres-entrypoint.sh /usr/local/bin/
RUN mkdir -p /data /docker-entrypoint-initdb.d \
    && chown valkey: /data \
    && install -d -o postgres -g postgres /var/lib/postgresql \
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
ENV PATH=/usr/lib/postgresql/18/bin:$PATH PGDATA=/var/lib/postgresql/18/docker
WORKDIR /data
VOLUME /var/lib/postgresql /data
ENTRYPOINT ["postgres-entrypoint.sh"]
CMD ["postgres"]
