//! What each query of a layer sees: a window of fixed or learned size, a second window of learned place, routed blocks.

use super::router::{self, Ask, Entry, Layer, Router};
use super::{DynamicConfig, Form, Place, Span};
use crate::error::Result;
use crate::nn::{Attention, Linear, ModelConfig, Module, param};
use crate::ops::dynamic_attention::{DynamicAttention, Sights};
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};
use crate::tensor::Tensor;

/// Windows and router of one layer.
pub(super) struct Sight {
    c: DynamicConfig,
    /// Largest span.
    limit: f64,
    size: Size,
    place: Option<Second>,
    router: Option<(&'static Entry, Box<dyn Router>)>,
    ramp: f64,
}

/// Where the size of the window comes from: limit·σ(…).
enum Size {
    Fixed(f64),
    Head(Slot),
    Token(Linear),
}

/// Where the second window stands, and its half width.
struct Second {
    at: At,
    /// [H]: limit·σ(slot).
    width: Slot,
}

enum At {
    /// [H]: limit·σ(slot) tokens before the query.
    Lag(Slot),
    /// position·σ(u·tanh(W·x)).
    Predicted([Linear; 2]),
}

/// The x of which σ(x) is `share`.
fn logit(share: f64) -> f64 {
    let share = share.clamp(1e-4, 1.0 - 1e-4);
    (share / (1.0 - share)).ln()
}

impl Sight {
    /// Slots `name.span`, `name.lag`, `name.place`, `name.width`, as far as `c` needs them, and those of the router.
    pub(super) fn new(c: &ModelConfig, name: &str, index: usize, p: &mut ParamsBuilder) -> Result<Sight> {
        let (d, heads) = (&c.dynamic, c.heads);
        let limit = d.limit(c.context) as f64;
        let fixed = c.attention == Attention::Window;
        let at = |what: &str| format!("{name}.{what}");
        let first = logit((d.window as f64 - 1.0) / limit);
        let size = match d.span {
            _ if fixed => Size::Fixed(d.window as f64 - 1.0),
            Span::Fixed => Size::Fixed(d.window as f64 - 1.0),
            Span::Head => Size::Head(p.add(at("span"), &[heads], Init::Constant(first), Role::Plain)?),
            Span::Token => {
                Size::Token(Linear::biased(p, &at("span"), c.dim, heads, Init::Constant(0.0), first)?)
            }
        };
        let place = if fixed { Place::None } else { d.place };
        let place = match place {
            Place::None => None,
            Place::Lag => Some(At::Lag(p.add(at("lag"), &[heads], Init::Uniform(2.0), Role::Plain)?)),
            Place::Predicted => Some(At::Predicted([
                Linear::new(p, &at("place.hidden"), c.dim, c.dim, Init::Normal(0.02))?,
                Linear::new(p, &at("place.out"), c.dim, heads, Init::Normal(0.02))?,
            ])),
        };
        let width = Init::Constant(logit(d.width / limit));
        let place = match place {
            Some(place) => {
                Some(Second { at: place, width: p.add(at("width"), &[heads], width, Role::Plain)? })
            }
            None => None,
        };
        let router = match router::find(&c.router)? {
            Some(entry) => {
                let layer = Layer { c: d, name: &at("router"), index, dim: c.dim, heads };
                Some((entry, (entry.build)(&layer, p)?))
            }
            None => None,
        };
        let ramp = if matches!(size, Size::Fixed(_)) && place.is_none() { 1.0 } else { d.ramp };
        Ok(Sight { c: d.clone(), limit, size, place, router, ramp })
    }

    /// Its router.
    pub(super) fn router(&self) -> Option<&'static Entry> {
        self.router.as_ref().map(|(entry, _)| *entry)
    }

    /// The op for queries of positions `offset` and on.
    pub(super) fn op(&self, offset: usize) -> DynamicAttention {
        let gaussian = self.c.form == Form::Gaussian;
        DynamicAttention { ramp: self.ramp, block: self.c.block, is_causal: true, offset, gaussian }
    }

    /// What the queries `q` [B, H, T, d] of tokens `x` [B, T, dim] see of `k` [B, H, all, d], and what that adds to the loss.
    /// `turned` are q and k as attention multiplies them.
    pub(super) fn look<'t>(
        &self,
        x: &Var<'t>,
        q: &Var<'t>,
        k: &Var<'t>,
        turned: [&Var<'t>; 2],
        offset: usize,
        memory: Option<&mut Option<Tensor>>,
    ) -> Result<(Sights<'t>, Option<Var<'t>>)> {
        let dims = &q.dims()[..3];
        let (span, penalty) = self.span(x, dims)?;
        let place = self.place.as_ref().map(|p| self.second(p, x, dims, offset)).transpose()?;
        let (blocks, more) = match &self.router {
            None => (None, None),
            Some((_, router)) => {
                let constant = |v: &Var<'t>| v.tape().constant(v.value().clone());
                let (query, key, x) = (&constant(q), &constant(k), &constant(x));
                let turned = turned.map(constant);
                let turned = [&turned[0], &turned[1]];
                let ask = Ask { query, key, turned, x, offset, skip: router::skip(&self.c), memory };
                let (blocks, loss) = router.route(ask)?;
                (Some(blocks), loss)
            }
        };
        let penalty = match (penalty, more) {
            (Some(a), Some(b)) => Some(a.add(&b)?),
            (a, b) => a.or(b),
        };
        Ok((Sights { span, blocks, place }, penalty))
    }

    /// Spans [B, H, T], and their part of the loss.
    fn span<'t>(&self, x: &Var<'t>, dims: &[usize]) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let share = match &self.size {
            Size::Fixed(span) => return Ok((filled(x, dims, *span)?, None)),
            Size::Head(slot) => param(x, *slot).sigmoid()?,
            Size::Token(linear) => linear.forward(x)?.permute(&[0, 2, 1])?.sigmoid()?,
        };
        let penalty = match self.c.penalty {
            0.0 => None,
            by => Some(share.mean()?.scale(by)?),
        };
        let span = share.scale(self.limit)?;
        let span = if matches!(self.size, Size::Head(_)) { each_head(&span, x, dims)? } else { span };
        Ok((span, penalty))
    }

    /// Middle and half width of the second window, [B, H, T] each.
    fn second<'t>(
        &self,
        second: &Second,
        x: &Var<'t>,
        dims: &[usize],
        offset: usize,
    ) -> Result<(Var<'t>, Var<'t>)> {
        let positions: Vec<f64> = (0..dims[2]).map(|i| (i + offset) as f64).collect();
        let value = x.value();
        let positions = Tensor::from_f64(value.device(), value.dtype(), &positions, &[1, 1, dims[2]])?;
        let positions = x.tape().constant(positions);
        let center = match &second.at {
            At::Lag(slot) => {
                positions.sub(&each_head(&param(x, *slot).sigmoid()?.scale(self.limit)?, x, dims)?)?
            }
            At::Predicted([hidden, out]) => {
                let share = out.forward(&hidden.forward(x)?.tanh()?)?.permute(&[0, 2, 1])?.sigmoid()?;
                share.mul(&positions)?
            }
        };
        Ok((center, each_head(&param(x, second.width).sigmoid()?.scale(self.limit)?, x, dims)?))
    }
}

/// A constant of shape `dims` filled with `value`.
fn filled<'t>(x: &Var<'t>, dims: &[usize], value: f64) -> Result<Var<'t>> {
    let spec = crate::shape::Spec::new(x.value().dtype(), dims)?;
    Ok(x.tape().constant(Tensor::full(x.value().device(), spec, value)?))
}

/// A number for each head, [H], as [B, H, T].
fn each_head<'t>(v: &Var<'t>, x: &Var<'t>, dims: &[usize]) -> Result<Var<'t>> {
    filled(x, dims, 0.0)?.add(&v.reshape(&[1, dims[1], 1])?)
}
