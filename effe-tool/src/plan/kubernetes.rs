//! A plan as Kubernetes objects, for each lambda: a Deployment, Service, Ingress, PodDisruptionBudget and
//! HorizontalPodAutoscaler.

use std::path::PathBuf;

use super::{CONCURRENCY, DRAIN_DELAY, File, Plan, Route, SERVER_TIMEOUT};
use crate::{
    image::USER,
    loader::{DRAIN_TIMEOUT, PORT, RUN_TIMEOUT, STOP_MARGIN},
};

/// One file for each lambda.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let file =
        |route: &Route| File { path: PathBuf::from(format!("{}.yaml", route.name)), text: objects(route) };
    plan.routes.iter().map(file).collect()
}

fn objects(route: &Route) -> String {
    let Route { name, image, replicas, cpu, memory, .. } = route;
    let version = route
        .version
        .as_ref()
        .map_or(String::new(), |version| format!("\n    app.kubernetes.io/version: {}", quoted(version)));
    let grace = DRAIN_DELAY + DRAIN_TIMEOUT + STOP_MARGIN;
    let parameters: String = route
        .parameters()
        .map(|pair| format!("\n            - --set\n            - {}", quoted(&pair)))
        .collect();
    let (path, host) = (&route.path, route.host.as_ref());
    // A lambda doesn't know its own path, so the router removes it from the URL.
    let rewrite = match path.as_str() {
        "/" => String::new(),
        path => format!(
            "\n    # A lambda doesn't know its own path, so the router removes it from the URL.\n    haproxy.org/path-rewrite: {}",
            quoted(&format!("{}/?(.*) /\\1", path.replace('.', "\\.")))
        ),
    };
    let host = host.map_or(String::new(), |host| format!("host: {}\n      ", quoted(host)));
    let max = u32::from(*replicas) * 5;
    format!(
        r#"# Made by effe-tool route kubernetes.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}{version}
    app.kubernetes.io/managed-by: effe-tool
spec:
  # The number of replicas is set by the HorizontalPodAutoscaler below.
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  strategy:
    # An old pod ends only after a new one is ready.
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
    spec:
      # --drain-delay, --drain-timeout, and some time to stop Contexts.
      terminationGracePeriodSeconds: {grace}
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {USER}
        runAsGroup: {USER}
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: {name}
      containers:
        - name: effe
          image: {image}
          args:
            - --port
            - "{PORT}"
            - --probes
            - --max-concurrency
            - "{CONCURRENCY}"
            # The endpoints learn of a pod's end at the same time as the pod: it accepts connections for this long.
            - --drain-delay
            - {DRAIN_DELAY}s
            - --drain-timeout
            - {DRAIN_TIMEOUT}s{parameters}
          ports:
            - name: http
              containerPort: {PORT}
          # Init may take a minute; a process that hangs in it is started again.
          startupProbe:
            httpGet:
              path: /health/readiness
              port: http
            periodSeconds: 1
            failureThreshold: 60
          # Not ready while draining, before a first Start has succeeded, and when the lambda itself isn't ready.
          readinessProbe:
            httpGet:
              path: /health/readiness
              port: http
            periodSeconds: 2
            failureThreshold: 1
          livenessProbe:
            httpGet:
              path: /health/liveness
              port: http
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          resources:
            requests:
              cpu: {cpu}
              memory: {memory}
            # There is no limit on CPU: it would make requests wait although the machine has idle time.
            limits:
              memory: {memory}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop:
                - ALL
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  selector:
    app.kubernetes.io/name: {name}
  ports:
    - name: http
      port: 80
      targetPort: http
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
  annotations:
    # The loader answers 504 after --run-timeout, which is {RUN_TIMEOUT}s.
    haproxy.org/timeout-server: {SERVER_TIMEOUT}s{rewrite}
spec:
  ingressClassName: haproxy
  rules:
    - {host}http:
        paths:
          - path: {path}
            pathType: Prefix
            backend:
              service:
                name: {name}
                port:
                  name: http
---
# When nodes are drained, one pod at a time ends.
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {name}
  minReplicas: {replicas}
  maxReplicas: {max}
  metrics:
    # In percent of the CPU requested above. For a lambda that mostly waits, scale by requests; see docs/scale.md.
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
"#
    )
}

/// A text as a YAML string; every JSON string is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
