FROM debian:12
COPY nosuch /opt
# finding: 2 error copy-missing not in the folder
