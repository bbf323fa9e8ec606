FROM debian:12
COPY requirements.txt
# finding: 2 error copy-words a source and a destination
