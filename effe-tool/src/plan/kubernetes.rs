//! A plan as Kubernetes objects: a Deployment for each lambda, and what leads to it, keeps it, and scales it.

use std::path::PathBuf;

use super::{CONCURRENCY, DRAIN_DELAY, DRAIN_TIMEOUT, File, Plan, Route};

/// What Stop, Retire and the end of the process may take beyond the drain.
const SLACK: u16 = 10;

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
    let grace = DRAIN_DELAY + DRAIN_TIMEOUT + SLACK;
    let parameters: String = route
        .parameters()
        .map(|pair| format!("\n            - --set\n            - {}", quoted(&pair)))
        .collect();
    let (path, host) = (&route.path, route.host.as_ref());
    // A lambda knows no URL: what leads to it is cut off.
    let rewrite = match path.as_str() {
        "/" => String::new(),
        path => format!(
            "\n    # A lambda knows no URL: what leads to it is cut off.\n    haproxy.org/path-rewrite: {}",
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
  # How many is for the HorizontalPodAutoscaler below to say.
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  strategy:
    # A new one is ready before an old one goes.
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
        runAsUser: 65532
        runAsGroup: 65532
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
            - "8080"
            - --probes
            - --max-concurrency
            - "{CONCURRENCY}"
            # Endpoints are told of a pod's end at the same time as the pod is: for so long it still takes connections.
            - --drain-delay
            - {DRAIN_DELAY}s
            - --drain-timeout
            - {DRAIN_TIMEOUT}s{parameters}
          ports:
            - name: http
              containerPort: 8080
          # Init may take its minute; a process that hangs in it is started again.
          startupProbe:
            httpGet:
              path: /health/readiness
              port: http
            periodSeconds: 1
            failureThreshold: 60
          # Says no while draining, before a first Start has succeeded, and when the lambda itself says no.
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
            # A limit on CPU would only make requests wait while the machine has time to spare.
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
    # The loader answers 504 after --run-timeout, which is 60s.
    haproxy.org/timeout-server: 65s{rewrite}
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
# Nodes are emptied one pod at a time.
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
    # Of what is requested above. A lambda that waits rather than computes scales by requests instead; see docs/scale.md.
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
"#
    )
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
