//! A plan as Kubernetes objects, for each lambda: a Deployment, Service, Ingress, PodDisruptionBudget and
//! HorizontalPodAutoscaler, and a PersistentVolumeClaim and a Secret if it needs them.

use super::{
    CONCURRENCY, DRAIN_DELAY, File, Parameter, Plan, Route, SERVER_TIMEOUT,
    quoting::{kubernetes_argument, yaml},
};
use crate::{
    image::USER,
    loader::{DRAIN_TIMEOUT, PORT, RUN_TIMEOUT, STOP_MARGIN},
};

/// Where a pod finds the Secret's entries.
const SECRETS: &str = "/run/secrets/effe";

/// A file for each lambda, and one for its Secret.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let mut files = Vec::new();
    for route in &plan.routes {
        files.push(File::new(format!("{}.yaml", route.name), objects(route)));
        // No lambda has a dot in its name.
        files.extend(
            secret(route, "kubernetes").map(|text| File::secret(format!("{}.secret.yaml", route.name), text)),
        );
    }
    if plan.kustomize {
        let file = kustomization(plan, &files);
        files.push(file);
    }
    files
}

/// What `kubectl apply --kustomize` reads: the other files, and the version of each image, which is what changes most.
fn kustomization(plan: &Plan, files: &[File]) -> File {
    let resources: String = files.iter().map(|file| format!("  - {}\n", file.path.display())).collect();
    let image = |route: &Route| {
        // What follows the last colon is the tag, unless it is the port of the registry.
        let (name, tag) = match route.image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !name.contains('@') => (name, tag),
            _ => return String::new(),
        };
        format!("  - name: {name}\n    newTag: {}\n", yaml(tag))
    };
    let images: String = plan.routes.iter().map(image).collect();
    let images = if images.is_empty() { images } else { format!("images:\n{images}") };
    File::new(
        "kustomization.yaml",
        format!(
            "# Made by effe-tool route kubernetes. An overlay names this directory under `resources`.\n\
             apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}{images}"
        ),
    )
}

fn objects(route: &Route) -> String {
    let Route { name, image, replicas, cpu, memory, .. } = route;
    let (version, parameters) = (version_label(route), arguments(route));
    let grace = DRAIN_DELAY + DRAIN_TIMEOUT + STOP_MARGIN;
    let (path, host) = (&route.path, route.host.as_ref());
    let rewrite = match path.as_str() {
        "/" => String::new(),
        path => format!(
            "\n    haproxy.org/path-rewrite: {}",
            yaml(&format!("{}/*(.*) /\\1", path.replace('.', "\\.")))
        ),
    };
    let prefix = yaml(&format!("X-Forwarded-Prefix {path}"));
    let host = host.map_or(String::new(), |host| format!("host: {}\n      ", yaml(host)));
    let strategy = match route.data {
        None => {
            "\
    # An old pod ends only after a new one is ready.
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0"
        }
        Some(_) => {
            "\
    # One pod at a time has the volume: the old one ends before a new one begins.
    type: Recreate"
        }
    };
    let group = match route.data {
        None => String::new(),
        Some(_) => format!("\n        # The volume belongs to this group.\n        fsGroup: {USER}"),
    };
    let count = match route.data {
        None => "# The number of replicas is set by the HorizontalPodAutoscaler below.".to_owned(),
        Some(_) => format!("replicas: {replicas}"),
    };
    let volumes = volumes(route);
    let below = match &route.data {
        None => autoscaler(route),
        Some(_) => claim(route),
    };
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
  {count}
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  strategy:
{strategy}
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
        runAsGroup: {USER}{group}
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
                - ALL{volumes}
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
    haproxy.org/timeout-server: {SERVER_TIMEOUT}s
    # The router removes a lambda's own path from the URL, and says which it was: for request.base().
    haproxy.org/request-set-header: {prefix}{rewrite}
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
{below}"#
    )
}

/// The label of an object that says the lambda's version.
pub(super) fn version_label(route: &Route) -> String {
    route.version.as_ref().map_or(String::new(), |version| {
        format!("\n    app.kubernetes.io/version: {}", yaml(&label(version)))
    })
}

/// The arguments that give a container its parameters.
pub(super) fn arguments(route: &Route) -> String {
    let pairs = route.set.iter().map(|(key, parameter)| match parameter {
        Parameter::Text(text) => format!("{key}={text}"),
        Parameter::File { .. } => format!("{key}=@{SECRETS}/{key}"),
    });
    pairs.map(|pair| format!("\n            - --set\n            - {}", kubernetes_argument(&pair))).collect()
}

/// The volumes of a pod, and where its container has them.
pub(super) fn volumes(route: &Route) -> String {
    let has_secret = route.set.values().any(|parameter| matches!(parameter, Parameter::File { .. }));
    let (mut mounts, mut volumes) = (String::new(), String::new());
    if let Some(data) = &route.data {
        mounts.push_str(&format!("\n            - name: data\n              mountPath: {data}"));
        volumes.push_str(&format!(
            "\n        - name: data\n          persistentVolumeClaim:\n            claimName: {}",
            route.name
        ));
    }
    if has_secret {
        mounts.push_str(&format!(
            "\n            - name: secrets\n              mountPath: {SECRETS}\n              readOnly: true"
        ));
        volumes.push_str(&format!(
            "\n        # After a change of the Secret: kubectl rollout restart deployment/{0}\n        \
             - name: secrets\n          secret:\n            secretName: {0}",
            route.name
        ));
    }
    match volumes.is_empty() {
        true => String::new(),
        false => format!("\n          volumeMounts:{mounts}\n      volumes:{volumes}"),
    }
}

/// The Secret of the parameters that are files.
pub(super) fn secret(route: &Route, engine: &str) -> Option<String> {
    let entries = route.set.iter().filter_map(|(key, parameter)| match parameter {
        Parameter::Text(_) => None,
        // The loader takes a line feed at the end away.
        Parameter::File { content, .. } => {
            Some(format!("  {}: {}\n", yaml(key), yaml(&format!("{content}\n"))))
        }
    });
    let entries: String = entries.collect();
    let name = &route.name;
    let text = format!(
        "# Made by effe-tool route {engine}.\napiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  labels:\n    \
         app.kubernetes.io/name: {name}\ntype: Opaque\nstringData:\n{entries}"
    );
    (!entries.is_empty()).then_some(text)
}

/// The claim of the volume that holds a lambda's data.
fn claim(route: &Route) -> String {
    let Route { name, storage, .. } = route;
    format!(
        r#"---
# The lambda's data, which outlives its pods.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  accessModes:
    - ReadWriteOnce
  resources:
    requests:
      storage: {storage}
"#
    )
}

fn autoscaler(route: &Route) -> String {
    let Route { name, replicas, .. } = route;
    let max = u32::from(*replicas) * 5;
    format!(
        r#"---
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

/// A version as a label's value, which is stricter: `1.0.0+build.5` becomes `1.0.0_build.5`, as in an image's tag.
fn label(version: &str) -> String {
    let text = version.replace('+', "_");
    let text: String = text.chars().take(63).collect();
    text.trim_matches(|ch: char| !ch.is_ascii_alphanumeric()).to_owned()
}
