# docker build --tag selfscale .
# docker run --rm -v "$PWD:/work" selfscale apply small.keras photos --out edges
FROM python:3.11-slim
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir --constraint /src/constraints.txt /src && rm -r /src
RUN useradd --create-home selfscale
USER selfscale
WORKDIR /work
ENTRYPOINT ["selfscale"]
CMD ["--help"]
