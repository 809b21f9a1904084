//! A plan as Knative Services, one for each lambda: Knative makes their addresses and scales them, to none when nobody
//! asks. A lambda with a host of its own gets a DomainMapping, and one with secrets a Secret.

use super::{
    CONCURRENCY, File, Plan, Route, SERVER_TIMEOUT,
    kubernetes::{arguments, secret, version_label, volumes},
    quoting::yaml,
};
use crate::{
    image::USER,
    loader::{DRAIN_TIMEOUT, PORT},
};

/// A file for each lambda, and one for its Secret.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let mut files = Vec::new();
    for route in &plan.routes {
        files.push(File::new(format!("{}.yaml", route.name), objects(route)));
        files.extend(
            secret(route, "knative").map(|text| File::secret(format!("{}.secret.yaml", route.name), text)),
        );
    }
    files
}

fn objects(route: &Route) -> String {
    let Route { name, image, cpu, memory, .. } = route;
    let (version, arguments, volumes) = (version_label(route), arguments(route), volumes(route));
    let mapping = route.host.as_ref().map_or(String::new(), |host| mapping(name, host));
    format!(
        r#"# Made by effe-tool route knative.
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}{version}
    app.kubernetes.io/managed-by: effe-tool
spec:
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
      annotations:
        # Without requests there is no pod. The first request after that waits until one is ready.
        autoscaling.knative.dev/min-scale: "0"
        # New pods come when those that are there run at seven tenths of containerConcurrency.
        autoscaling.knative.dev/target-utilization-percentage: "70"
    spec:
      # As many requests as a loader runs at once (--max-concurrency); others wait in front of the pods.
      containerConcurrency: {CONCURRENCY}
      # A little longer than the loader's --run-timeout, so that its 504 reaches the client.
      timeoutSeconds: {SERVER_TIMEOUT}
      automountServiceAccountToken: false
      enableServiceLinks: false
      containers:
        - name: effe
          image: {image}
          # The port comes as the variable PORT, which the loader takes.
          args:
            - --probes
            - --max-concurrency
            - "{CONCURRENCY}"
            - --drain-timeout
            - {DRAIN_TIMEOUT}s{arguments}
          ports:
            - name: http1
              containerPort: {PORT}
          # Not ready before a first Start has succeeded, and when the lambda itself isn't ready. Port 0 is the container's.
          readinessProbe:
            httpGet:
              path: /health/readiness
              port: 0
          livenessProbe:
            httpGet:
              path: /health/liveness
              port: 0
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          resources:
            requests:
              cpu: {cpu}
              memory: {memory}
            limits:
              memory: {memory}
          securityContext:
            runAsNonRoot: true
            runAsUser: {USER}
            runAsGroup: {USER}
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop:
                - ALL
            seccompProfile:
              type: RuntimeDefault{volumes}
{mapping}"#
    )
}

/// The object by which a host leads to a lambda.
fn mapping(name: &str, host: &str) -> String {
    format!(
        r#"---
# The host must be this cluster's to give: a ClusterDomainClaim says so.
apiVersion: serving.knative.dev/v1beta1
kind: DomainMapping
metadata:
  name: {host}
  labels:
    app.kubernetes.io/name: {name}
spec:
  ref:
    apiVersion: serving.knative.dev/v1
    kind: Service
    name: {name}
"#,
        host = yaml(host)
    )
}
