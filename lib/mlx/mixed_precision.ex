defmodule Mlx.MixedPrecision do
  @moduledoc """
  Training in halves, with weights in `f32`.

      defn step(weights, scale, images, digits) do
        {loss, gradients, scale} =
          Mlx.MixedPrecision.value_and_grad(weights, scale, &loss(&1, images, digits), type: :f16)

        updated = add(weights, gradients, -@rate)
        {Mlx.MixedPrecision.accept(scale, updated, weights), scale, loss}
      end

      scale = Mlx.MixedPrecision.scale()

  The forward pass and the gradients of what it computes are in `bf16` or `f16`; the weights that are
  updated, and their gradients, are in `f32`, in which small updates are not lost.

  Small gradients are, in `f16`: they become zero below 6.0e-8. The loss is therefore multiplied by a scale, and the
  gradients are divided by it. Where the scale is too large, gradients are infinite or NaN. This is
  noticed: the scale is halved, and `accept/3` keeps the weights as they were before such a step. After
  many steps without, the scale is doubled. `bf16` has the range of `f32` and does not need a scale, but none
  does harm.

  All functions work on containers of tensors, in `defn` and outside, with any backend and compiler. The
  method is that of [Micikevicius et al., 2017](https://arxiv.org/abs/1710.03740).

  ## Axon

  Axon casts by itself what a policy says, and takes `loss_scale/1` and an optimizer made by
  `skip_overflow/1`:

      policy = Axon.MixedPrecision.create_policy(params: {:f, 32}, compute: {:f, 16}, output: {:f, 16})
      optimizer = Mlx.MixedPrecision.skip_overflow(Polaris.Optimizers.adam(learning_rate: 0.01))

      model
      |> Axon.MixedPrecision.apply_policy(policy, except: [:batch_norm])
      |> Axon.nx(&Mlx.MixedPrecision.cast(&1, :f32))
      |> Axon.Loop.trainer(loss, optimizer, loss_scale: Mlx.MixedPrecision.loss_scale())
  """

  import Nx.Defn

  alias Nx.Defn.Composite

  defmodule Scale do
    @moduledoc """
    What the loss is multiplied by.

      * `:factor` - the number
      * `:steps` - how many steps there were since it changed
      * `:finite` - `1` if the last gradients were finite, else `0`
      * `:period`, `:growth`, `:min`, `:max` - the options of `Mlx.MixedPrecision.scale/1`
    """

    @derive {Nx.Container,
             containers: [:factor, :steps, :finite], keep: [:period, :growth, :min, :max]}
    @enforce_keys [:factor, :steps, :finite, :period, :growth, :min, :max]
    defstruct @enforce_keys

    @type t :: %__MODULE__{
            factor: Nx.Tensor.t(),
            steps: Nx.Tensor.t(),
            finite: Nx.Tensor.t(),
            period: pos_integer,
            growth: number,
            min: number,
            max: number
          }
  end

  @type container :: Nx.Container.t()

  @doc """
  A scale to begin with.

  ## Options

    * `:initial` - the number, `32_768` by default
    * `:period` - after how many steps without overflow it grows, `2000` by default
    * `:growth` - what it is multiplied by then, and divided by after an overflow: at least 1, `2` by default.
      With `1` the scale stays.
    * `:min`, `:max` - its bounds, `1` and `2 ** 24` by default

  Raises `ArgumentError` if they contradict each other, or are not numbers.

  ## Examples

      iex> Mlx.MixedPrecision.scale(initial: 1024).factor |> Nx.to_number()
      1024.0

  """
  @spec scale(keyword) :: Scale.t()
  def scale(opts \\ []) do
    opts =
      Keyword.validate!(opts, initial: 32_768, period: 2000, growth: 2, min: 1, max: 16_777_216)

    check!(opts)
    {initial, opts} = Keyword.pop!(opts, :initial)
    factor = Nx.tensor(initial, type: :f32)
    state = [factor: factor, steps: Nx.tensor(0), finite: Nx.tensor(1, type: :u8)]
    struct!(Scale, state ++ opts)
  end

  defp check!(opts) do
    valid? =
      Enum.all?(Keyword.delete(opts, :period), fn {_name, number} -> is_number(number) end) and
        is_integer(opts[:period]) and opts[:period] > 0 and opts[:growth] >= 1 and
        opts[:min] > 0 and opts[:initial] >= opts[:min] and opts[:initial] <= opts[:max]

    if not valid? do
      raise ArgumentError,
            "a scale has a positive :period, a :growth of at least 1, and 0 < :min <= :initial <= :max, " <>
              "got: #{inspect(opts)}"
    end
  end

  @doc """
  The tensors of floats in a container as ones of `type`. Others stay.

  The gradient goes back in the type from which it was cast, while that of `Nx.as_type/2` stays in
  `type`. So a forward pass in `f16` that casts its result to `f32` for a precise loss has its
  gradients in `f16` if it does so with this function.

  Raises `ArgumentError` if `type` is not one of floats.

  ## Examples

      iex> {weight, count} = Mlx.MixedPrecision.cast({Nx.tensor([1.5]), Nx.tensor(3)}, :bf16)
      iex> {Nx.type(weight), Nx.type(count)}
      {{:bf, 16}, {:s, 32}}

  """
  @spec cast(container, Nx.Type.t() | Nx.Type.short_t()) :: container
  deftransform cast(container, type) do
    type = floats!(type)

    Composite.traverse(container, fn tensor ->
      tensor = Nx.to_tensor(tensor)
      if Nx.Type.float?(tensor.type), do: cast_tensor(tensor, type), else: tensor
    end)
  end

  defp cast_tensor(%{type: type} = tensor, type), do: tensor

  defp cast_tensor(%{data: %Nx.Defn.Expr{}, type: before} = tensor, type) do
    tensor |> Nx.as_type(type) |> Nx.Defn.Kernel.custom_grad([tensor], &[Nx.as_type(&1, before)])
  end

  defp cast_tensor(tensor, type), do: Nx.as_type(tensor, type)

  defp floats!(type) do
    type = Nx.Type.normalize!(type)

    if not Nx.Type.float?(type) do
      raise ArgumentError, "a forward pass has a type of floats, got: #{Nx.Type.to_string(type)}"
    end

    type
  end

  @doc """
  The value of a loss, the gradients of it, and the scale for the next step.

  `fun` takes the weights, cast to the type of the forward pass, and gives the loss, a number. What
  else it uses it should `cast/2` to this type, since Nx goes on in the type that holds both. The loss and the
  gradients are `f32` and without the scale. If some gradient is not finite, `:finite` of the scale
  that is returned is `0`, and the gradients are of no use: see `accept/3`.

  ## Options

    * `:type` - that of the forward pass, `:bf16` by default

  ## Examples

      iex> loss = fn weight -> Nx.sum(Nx.multiply(weight, weight)) end
      iex> scale = Mlx.MixedPrecision.scale(initial: 1024)
      iex> weight = Nx.tensor([1.0, 2.0])
      iex> {loss, gradient, _scale} = Mlx.MixedPrecision.value_and_grad(weight, scale, loss, type: :f16)
      iex> {Nx.to_number(loss), Nx.to_list(gradient)}
      {5.0, [2.0, 4.0]}

  """
  @spec value_and_grad(container, Scale.t(), (container -> Nx.Tensor.t()), keyword) ::
          {Nx.Tensor.t(), container, Scale.t()}
  defn value_and_grad(weights, scale, fun, opts \\ []) do
    opts = keyword!(opts, type: :bf16)

    {loss, gradients} =
      value_and_grad(weights, fn weights ->
        cast(fun.(cast(weights, opts[:type])), :f32) * stop_grad(scale.factor)
      end)

    {gradients, next} = unscale(gradients, scale)
    {loss / scale.factor, gradients, next}
  end

  defnp unscale(gradients, scale) do
    {multiply(gradients, 1 / scale.factor), adjust(scale, finite?(gradients))}
  end

  # Halves become f32: without the scale they would be lost after all.
  deftransformp(multiply(container, factor),
    do: Composite.traverse(container, &Nx.multiply(&1, factor))
  )

  # A NaN is not less than anything.
  deftransformp finite?(container) do
    [container]
    |> Composite.flatten_list()
    |> Enum.map(&Nx.all(Nx.less_equal(Nx.abs(&1), Nx.Constants.max_finite(Nx.type(&1)))))
    |> Enum.reduce(&Nx.logical_and/2)
  end

  defnp adjust(scale, finite) do
    %{period: period, growth: growth, min: least, max: most} = scale
    steps = Nx.select(finite, scale.steps + 1, 0)
    grows = steps == period
    larger = Nx.select(grows, Nx.min(scale.factor * growth, most), scale.factor)
    factor = Nx.select(finite, larger, Nx.max(scale.factor / growth, least))
    %{scale | factor: factor, steps: Nx.select(grows, 0, steps), finite: finite}
  end

  @doc """
  What a step made of the weights, or what they were before if its gradients were not finite.

  `scale` is that which `value_and_grad/4` returned; `updated` and `before` are containers of the
  same form, such as weights and the state of an optimizer. Raises `ArgumentError` if they are not.

  ## Examples

      iex> loss = fn weight -> Nx.exp(weight) end
      iex> weight = Nx.tensor(12.0)
      iex> scale = Mlx.MixedPrecision.scale()
      iex> {_, gradient, scale} = Mlx.MixedPrecision.value_and_grad(weight, scale, loss, type: :f16)
      iex> Mlx.MixedPrecision.accept(scale, Nx.subtract(weight, gradient), weight) |> Nx.to_number()
      12.0
      iex> Nx.to_number(scale.factor)
      16384.0

  """
  @spec accept(Scale.t(), container, container) :: container
  deftransform(accept(scale, updated, before), do: choose(scale.finite, updated, before))

  defp choose(finite, updated, before) do
    tensors = Composite.flatten_list([before])

    case Composite.traverse(updated, tensors, &choose_tensor(finite, &1, &2)) do
      {chosen, []} -> chosen
      _ -> raise ArgumentError, "what is updated has other tensors than what there was before"
    end
  end

  defp choose_tensor(finite, updated, [before | rest]),
    do: {Nx.select(finite, updated, before), rest}

  defp choose_tensor(_finite, _updated, []),
    do: raise(ArgumentError, "what is updated has more tensors than what there was before")

  @doc """
  A dynamic scale for `Axon.Loop.trainer/4`, with the options of `scale/1`.

  Use it with `skip_overflow/1`, which keeps what gradients that are not finite would do to the weights.

  ## Examples

      iex> {init, scale, _unscale} = Mlx.MixedPrecision.loss_scale(initial: 1024)
      iex> Nx.tensor(0.5) |> scale.(init.()) |> Nx.to_number()
      512.0

  """
  @spec loss_scale(keyword) :: {(-> Scale.t()), function, function}
  def loss_scale(opts \\ []) do
    # Wrong options are told now, not once the loop runs.
    %Scale{} = scale(opts)
    {fn -> scale(opts) end, &multiply(&1, &2.factor), &unscale/2}
  end

  @doc """
  An optimizer that does nothing in steps whose gradients are not finite.

  `optimizer` is a pair of functions, `init` of the parameters and `update` of the gradients, the
  state and the parameters, as Polaris has them. In such a step the updates are zero and the state stays.

  ## Examples

      iex> plain = {fn _weights -> {} end, fn gradients, state, _weights -> {gradients, state} end}
      iex> {_init, update} = Mlx.MixedPrecision.skip_overflow(plain)
      iex> {updates, {}} = update.(Nx.tensor([:infinity, 1.0]), {}, Nx.tensor([0.0, 0.0]))
      iex> Nx.to_list(updates)
      [0.0, 0.0]

  """
  @spec skip_overflow({init, update}) :: {init, update}
        when init: (container -> container),
             update: (container, container, container -> {container, container})
  def skip_overflow({init, update}) when is_function(init, 1) and is_function(update, 3) do
    {init,
     fn gradients, state, parameters ->
       finite = finite?(gradients)
       {updates, next} = update.(gradients, state, parameters)
       zeros = Composite.traverse(updates, &Nx.broadcast(Nx.tensor(0, type: Nx.type(&1)), &1))
       {choose(finite, updates, zeros), choose(finite, next, state)}
     end}
  end
end
