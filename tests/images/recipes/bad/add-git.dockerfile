FROM debian:12
ADD https://example.org/repo.git /src
# finding: 2 error add-git git clone
