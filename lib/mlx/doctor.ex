defmodule Mlx.Doctor do
  @moduledoc """
  Looks whether all that Mlx needs is there and works.

  `mix mlx.doctor` prints it. In a release, which has no Mix, this does:

      bin/my_app eval "Mlx.Doctor.run()"

  It runs also where the NIF can't be loaded, and says why.
  """

  alias Mlx.Doctor.{Blas, Compute, Cuda, Host, Nif, Runtime}

  @typedoc """
  What was looked at, how it is, what was found, and what to do about it.
  """
  @type check :: %{
          name: String.t(),
          status: :ok | :warning | :error,
          message: String.t(),
          advice: String.t() | nil
        }

  @doc """
  All that is looked at, one by one: each is checked when it is asked for.

  A warning is of something that works, but slowly, or not for everything; an error of
  something that does not work.

  ## Examples

      iex> platform = Enum.at(Mlx.Doctor.checks(), 0)
      iex> {platform.name, platform.status}
      {"platform", :ok}

  """
  @spec checks() :: Enumerable.t(check)
  def checks do
    priv = priv()
    runtime = Runtime.find(priv)

    Stream.concat([
      lazily(&Host.platform/0),
      lazily(&Host.elixir/0),
      lazily(fn -> Runtime.check(runtime) end),
      lazily(fn -> Cuda.check(runtime) end),
      lazily(&Nif.check/0),
      lazily(fn -> if Nif.loaded?(), do: working(runtime), else: [] end),
      lazily(&Host.compiler/0)
    ])
  end

  # What takes the NIF.
  defp working(runtime) do
    Stream.concat([
      lazily(&Compute.application/0),
      lazily(fn -> Compute.devices(runtime) end),
      lazily(&Compute.computations/0),
      lazily(&Blas.check/0)
    ])
  end

  defp lazily(check) do
    Stream.flat_map([check], fn check ->
      case check.() do
        %{status: _} = one -> [one]
        several -> several
      end
    end)
  end

  @doc """
  Prints the checks with `print` as they are made, and gives `:error` if one of them is an
  error, `:ok` otherwise.

  ## Examples

      iex> Mlx.Doctor.run(fn line -> send(self(), {:doctor, line}) end)
      :ok
      iex> receive do: ({:doctor, line} -> line =~ "platform")
      true

  """
  @spec run((String.t() -> term)) :: :ok | :error
  def run(print \\ &IO.puts/1) do
    checks = Enum.map(checks(), fn check -> print.(line(check)) && check end)
    counts = Enum.frequencies_by(checks, & &1.status)
    print.("#{counts[:error] || 0} errors, #{counts[:warning] || 0} warnings")
    if counts[:error], do: :error, else: :ok
  end

  defp line(%{name: name, status: status, message: message, advice: advice}) do
    lead = String.pad_trailing("#{status}", 9) <> String.pad_trailing(name, 16)
    advice = if advice, do: "\n" <> String.duplicate(" ", 25) <> "-> " <> advice, else: ""
    lead <> message <> advice
  end

  defp priv do
    case :code.priv_dir(:mlx) do
      {:error, :bad_name} -> Application.app_dir(:mlx, "priv")
      priv -> List.to_string(priv)
    end
  end

  @doc false
  def ok(name, message), do: check(name, :ok, message, nil)
  @doc false
  def warning(name, message, advice), do: check(name, :warning, message, advice)
  @doc false
  def error(name, message, advice), do: check(name, :error, message, advice)

  defp check(name, status, message, advice),
    do: %{name: name, status: status, message: message, advice: advice}
end
