FROM debian:12
COPY ../secrets /opt
# finding: 2 error copy-outside into that folder
