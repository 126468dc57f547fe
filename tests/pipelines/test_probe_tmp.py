import boto3, pytest, mlflow, tempfile, io
from mlflow import MlflowClient
from tests.pipelines.test_compare_models import *  # noqa
from pipelines.registered_model import load_model
def test_probe(model, minio, capsys, monkeypatch):
    c = model(good=True)
    v = MlflowClient().get_model_version(c.name, "1")
    print("SRC", v.source, MlflowClient().get_model_version_download_uri(c.name,"1"))
    names=[i.object_name for i in minio.client.list_objects("mlflow", recursive=True)]
    one=[n for n in names if v.run_id in n]
    print(one)
    def attempt(tag):
        try: load_model(c.name,1); print(tag,"OK")
        except Exception as e:
            print(tag, type(e).__name__, e)
            x=e.__cause__; print("   CAUSE", type(x).__name__, getattr(x,"error_code",None), str(x)[:1500], "|", type(x.__cause__ or x.__context__))
    keep={n: minio.client.get_object("mlflow",n).read() for n in one}
    minio.client.remove_object("mlflow", one[-1]); attempt("ONE GONE "+one[-1])
    for n in one: minio.client.remove_object("mlflow",n)
    attempt("ALL GONE")
    MlflowClient().delete_run(v.run_id); attempt("RUN DELETED")
    MlflowClient().restore_run(v.run_id)
    allof={n: minio.client.get_object("mlflow",n).read() for n in names if n not in one}
    for n in allof: minio.client.remove_object("mlflow",n)
    try:
        minio.client.remove_bucket("mlflow"); attempt("BUCKET GONE")
    finally:
        minio.client.make_bucket("mlflow")
        for n,b in allof.items(): minio.client.put_object("mlflow",n,io.BytesIO(b),len(b))
    assert 0
