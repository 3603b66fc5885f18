defmodule Mlx.Peers do
  @moduledoc """
  Nodes beside that of the tests, and what runs on them.
  """

  import ExUnit.Assertions

  @doc """
  Makes this VM a node for as long as the tests of a module run, if it is none.
  """
  def distribute do
    if not Node.alive?() do
      start_epmd()
      name = :"mlx_#{System.os_time()}@127.0.0.1"

      case :net_kernel.start(name, %{name_domain: :longnames}) do
        {:ok, _} ->
          ExUnit.Callbacks.on_exit(&:net_kernel.stop/0)

        {:error, reason} ->
          flunk(
            "this VM can't be a node of a cluster, so distribution is NOT tested: " <>
              "#{inspect(reason)}; it needs epmd and a port on 127.0.0.1"
          )
      end
    end
  end

  # Only the command `erl` starts it by itself.
  defp start_epmd do
    bundled = Path.wildcard("#{:code.root_dir()}/erts-*/bin/epmd")
    epmd = System.find_executable("epmd") || List.first(bundled)
    epmd || flunk("epmd is not installed, so distribution is NOT tested")
    {_, 0} = System.cmd(epmd, ["-daemon"])
    await_epmd(500)
  end

  defp await_epmd(0), do: :ok

  defp await_epmd(tries) do
    if match?({:error, _}, :erl_epmd.names(~c"127.0.0.1")) do
      Process.sleep(10)
      await_epmd(tries - 1)
    end
  end

  @doc """
  Starts a node that ends with the test, and Mlx on it.
  """
  def start do
    args = Enum.flat_map(Mlx.OwnVm.paths(), &[~c"-pa", to_charlist(&1)])
    args = [~c"-setcookie", to_charlist(Node.get_cookie()) | args]

    {:ok, _peer, node} =
      :peer.start_link(%{
        name: :peer.random_name(),
        host: ~c"127.0.0.1",
        longnames: true,
        args: args
      })

    {:ok, _} = :erpc.call(node, Application, :ensure_all_started, [:mlx])
    :ok = :erpc.call(node, Mlx.TestDevice, :start, [])
    node
  end

  @doc """
  Starts a serving on a node under a name.
  """
  def serve(node, name, opts) do
    parent = self()

    Node.spawn_link(node, fn -> __MODULE__.serve_here(parent, name, opts) end)
    assert_receive {:serving, ^name, ^node}, 30_000
  end

  @doc false
  def serve_here(parent, name, opts) do
    {serving, opts} = Keyword.pop!(opts, :serving)
    serving = apply(__MODULE__, serving, [opts])
    opts = [serving: serving, name: name, batch_size: 4, batch_timeout: 5, partitions: true]
    {:ok, _} = Supervisor.start_link([{Nx.Serving, opts}], strategy: :one_for_one)
    send(parent, {:serving, name, node()})
    Process.sleep(:infinity)
  end

  @doc """
  Squares rows and doubles them, and says on which node.
  """
  def squares(opts) do
    weight = Nx.tensor(2, backend: Mlx.Backend)
    squares = fn weight, rows -> Nx.multiply(Nx.multiply(rows, rows), weight) end
    options = [compiler: Mlx.Compiler, max_concurrency: 2]

    fn options -> Nx.Defn.jit(squares, options) |> then(&fn rows -> &1.(weight, rows) end) end
    |> Nx.Serving.new(options)
    |> Nx.Serving.client_preprocessing(&{Nx.Batch.concatenate([&1]), :info})
    |> Nx.Serving.client_postprocessing(fn {rows, _metadata}, _info -> {node(), rows} end)
    |> copy(opts[:copy])
  end

  @doc """
  Squares rows, batch by batch.
  """
  def streamed(_opts) do
    fun = fn rows -> Nx.multiply(rows, rows) end

    fun
    |> Nx.Serving.jit(compiler: Mlx.Compiler)
    |> Nx.Serving.client_preprocessing(&{[Nx.Batch.concatenate([&1])], :info})
    |> Nx.Serving.streaming()
    |> Nx.Serving.distributed_postprocessing(fn stream ->
      Stream.map(stream, fn {:batch, rows, metadata} ->
        {:batch, Nx.backend_copy(rows, Nx.BinaryBackend), metadata}
      end)
    end)
  end

  defp copy(serving, false), do: serving

  defp copy(serving, true) do
    Nx.Serving.distributed_postprocessing(serving, fn {node, rows} ->
      {node, Nx.backend_copy(rows, Nx.BinaryBackend)}
    end)
  end
end
