defmodule Mlx.Compiler.Executable do
  @moduledoc false

  # A compiled function: the plan, and what its results look like.

  alias Mlx.Dispatch
  alias Mlx.Compiler.{Expression, Fuse, Options, Plan}
  alias Nx.Defn.Composite
  alias Nx.Tensor, as: T

  @enforce_keys [:plan, :nodes, :donated, :output]
  defstruct [:plan, :nodes, :donated, :output]

  @doc """
  What `Nx.Defn.Compiler` calls to have the executable itself.
  """
  def __compile__(_key, vars, fun, opts) do
    compile(fun, vars, opts |> Options.new!() |> Fuse.prepare())
  end

  @doc """
  Compiles what `fun` makes of `vars`.
  """
  def compile(fun, vars, %Options{} = options) do
    {exprs, output} =
      vars
      |> fun.()
      |> Composite.traverse([], &{template(&1), [Nx.devectorize(&1) | &2]})
      |> then(fn {output, exprs} -> {Enum.reverse(exprs), output} end)

    parameters = parameters(vars)
    {scope, tensors} = Expression.trace(exprs, options)
    settings = %{tensors: tensors, device: options.device, fuse: options.fuse}

    plan = Plan.build(scope, inputs(parameters, options.device), settings)

    %__MODULE__{
      plan: plan,
      nodes: Plan.nodes(plan),
      donated: for({%T{donatable?: true}, at} <- Enum.with_index(parameters), do: at),
      output: output
    }
  end

  @doc """
  The parameters of arguments, in order. An argument may be a block that takes several.
  """
  def parameters(vars), do: vars |> Composite.flatten_list() |> Enum.flat_map(&parameters_of/1)

  defp parameters_of(%T{data: %Nx.Defn.Expr{op: :block, args: [_block, args | _]}}),
    do: parameters(args)

  defp parameters_of(%T{} = parameter), do: [parameter]

  # Of arguments that are donated the results are the function's own.
  defp template(%T{} = expr), do: %{Nx.to_template(expr) | donatable?: false}

  defp inputs(parameters, device) do
    for {parameter, at} <- Enum.with_index(parameters),
        do: Dispatch.input(parameter, {:input, at}, device)
  end

  @doc """
  Runs it with functions that give the arguments.
  """
  def run(%__MODULE__{plan: plan} = executable, args, %Options{device: device}) do
    values = args |> values(plan.inputs, 0, device) |> List.to_tuple()
    refs = Plan.run(plan, values, device, executable.donated)
    Dispatch.wrap_all(executable.output, refs, device)
  end

  # Arguments that nothing depends on are not even made.
  defp values([arg | args], [at | used], at, device),
    do: [value(arg.(), device) | values(args, used, at + 1, device)]

  defp values([_ | args], used, at, device), do: [nil | values(args, used, at + 1, device)]
  defp values([], [], _at, _device), do: []

  defp value(%T{data: %Nx.Defn.Expr{}} = tensor, _device) do
    raise ArgumentError,
          "cannot pass a tensor expression as argument to defn, got: #{inspect(tensor)}"
  end

  defp value(%T{} = tensor, device), do: Dispatch.ref(tensor, device)
end
